"""What a similarity is to be held against: models that were never trained, other texts, a model grown apart.

The mean over shuffled rows is not what unrelated models have: two models without any training still see the same texts
through the same architecture. Each level here is measured as the pair is, on the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from reasoning_embedding.errors import InputError

from .capture import Activations, Sample, read
from .instrument import Checkpoint, Instrument, OpenModel, PairStates, matched_layers
from .measure import finite, knn_rows, measure, names_of
from .metrics.cka import debiased_cka_of, unit_cka_of
from .metrics.layer import Layer
from .moments import RowMoments

#: Name of a level -> what it is.
MEANING = {
    "random_initialisation": "two models of these architectures with fresh weights, on the same rows",
    "other_texts": "the two models on different texts, at the same positions",
    "sibling": "A and a model grown like it, independently",
}
_SEEDS = (1, 2)


@dataclass(frozen=True)
class ReferenceLevel:
    """One level: the pair's metrics where the two sides share less.

    Parameters
    ----------
    meaning : str
        What was compared.
    n : int
        Rows.
    last : dict of str to float or None
        Metrics at the final norm.
    diagonal : dict of str to list
        ``cka_debiased`` and ``cka_unit`` of the matched layers.
    """

    meaning: str
    n: int
    last: dict[str, float | None]
    diagonal: dict[str, list[float | None]]

    def record(self) -> dict[str, Any]:
        """As the results file has it."""
        return {"meaning": self.meaning, "n": self.n, "last": self.last, "diagonal": self.diagonal}


def reference_levels(
    a: OpenModel, b: OpenModel, states: PairStates, instrument: Instrument, sibling: Checkpoint | None = None
) -> dict[str, ReferenceLevel]:
    """Measure the levels of a pair.

    Parameters
    ----------
    a, b : OpenModel
        The pair.
    states : PairStates
        What was measured of it; the kept rows are used.
    instrument : Instrument
        Probe set, settings, ranks.
    sibling : Checkpoint, optional
        A model that was grown like A from other seeds.

    Raises
    ------
    InputError
        If the sibling cannot be read, or cuts texts into other tokens than A while rows are tokens.
    """
    sample = states.a.sample
    found = {"random_initialisation": _untrained(a, b, sample, instrument)}
    swapped, kept = _other_texts(b, sample)
    if len(swapped) >= 4:
        partner = _partners(b)
        [other] = read([b.model], [[b.ids[text] for text in partner]], swapped, world=instrument.world)
        b.release()
        own = [rows[kept] for rows in states.a.activations.states]
        found["other_texts"] = _level("other_texts", own, other, swapped, instrument)
    if sibling is not None:
        twin = instrument.open(sibling, like=a)
        [other] = read([twin.model], [twin.ids], sample, world=instrument.world)
        meaning = f"{MEANING['sibling']}: {sibling.reference}"
        level = _level("sibling", states.a.activations.states, other, sample, instrument)
        found["sibling"] = replace(level, meaning=meaning)
    return found


def _untrained(a: OpenModel, b: OpenModel, sample: Sample, instrument: Instrument) -> ReferenceLevel:
    """Both architectures with fresh weights; pairs of the same ones share the measurement."""
    key = (a.architecture, b.architecture, a.tokens, b.tokens, sample.skipped)
    known = instrument.untrained.get(key)
    if known is None:
        device, states = "cuda" if torch.cuda.is_available() else "cpu", []
        for reader, seed in zip((a, b), _SEEDS, strict=True):
            model: Any = reader.untrained(seed).to(device)
            states += read([model], [reader.ids], sample, world=instrument.world)
        known = _level("random_initialisation", states[0].states, states[1], sample, instrument)
        instrument.untrained[key] = known
    return known


def _partners(reader: OpenModel) -> np.ndarray:
    """For each text another one of nearly its length: neighbours in the order of lengths change places."""
    order = np.argsort([len(text) for text in reader.ids], kind="stable")
    partner = np.empty(len(order), dtype=np.int64)
    pairs = np.split(
        order, np.arange(2, len(order) - len(order) % 2 - 1, 2)
    )  # the last is of three if they are odd
    for some in pairs:
        partner[some] = np.roll(some, 1)
    return partner


def _other_texts(reader: OpenModel, sample: Sample) -> tuple[Sample, np.ndarray]:
    """The sample where every text has another one's tokens, and which of its rows (indices) both texts have."""
    lengths = np.array([len(text) for text in reader.ids])[_partners(reader)]
    documents, positions = sample.documents, sample.positions
    if sample.tokens == "last":
        positions = lengths[documents] - 1
    kept = np.flatnonzero(positions < lengths[documents])
    return replace(sample, documents=documents[kept], positions=positions[kept]), kept


def _level(
    name: str, own: Sequence[np.ndarray], other: Activations, sample: Sample, instrument: Instrument
) -> ReferenceLevel:
    """Metrics at the final norm, and CKA along the diagonal."""
    settings = instrument.settings
    curves: dict[str, list[float | None]] = {"cka_debiased": [], "cka_unit": []}
    for i, j in matched_layers(len(own), len(other.states)):
        x, y = Layer(own[i], dtype=np.float32), Layer(other.states[j], dtype=np.float32)
        for metric, compute in (
            ("cka_debiased", lambda x=x, y=y: debiased_cka_of(RowMoments(x, y))),
            ("cka_unit", lambda x=x, y=y: unit_cka_of(x, y)),
        ):
            try:
                curves[metric].append(finite(compute()))
            except InputError:  # a layer that does not vary
                curves[metric].append(None)
    last = Layer(own[-1], dtype=np.float32), Layer(other.states[-1], dtype=np.float32)
    rows = knn_rows([last[0]] * 2, [last[1]] * 2, settings.seed).context
    metrics = measure(*last, rows, sample.documents, settings).metrics
    values = {metric: finite(metrics.get(metric)) for metric in names_of(settings)}
    return ReferenceLevel(MEANING[name], len(sample), values, curves)
