"""Which analysed pairs compare two backbones, before and after contrastive training, and which the training itself."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from reasoning_embedding.reports.labels import training_kind
from reasoning_embedding.reports.records import HALF_WIDTH, AnalysedModel, AnalysedPair, Experiment

Role = Literal["before", "after", "training", "seeds", "readouts", "other"]


@dataclass(frozen=True)
class BackbonePair:
    """Two backbones, as language models (`before` contrastive training) and as embedders (`after` it).

    Parameters
    ----------
    base, variant : str
        The backbones.
    kind : str
        How the variant grew from the base, such as ``RLVR``; empty where that is not known.
    before, after : AnalysedPair or None
        What was analysed of them.
    readout : str, optional
        Of the embedders, where the experiment compares several.
    """

    base: str
    variant: str
    kind: str
    before: AnalysedPair | None
    after: AnalysedPair | None
    readout: str | None = None

    @property
    def name(self) -> str:
        """What tables call it."""
        kind = f" ({self.kind})" if self.kind else ""
        return f"{self.base} → {self.variant}{kind}" + (f", {self.readout}" if self.readout else "")

    @property
    def analysed(self) -> list[tuple[str, AnalysedPair]]:
        """What was analysed, with the words for it."""
        named = (("before CL", self.before), ("after CL", self.after))
        return [(words, pair) for words, pair in named if pair is not None]


@dataclass(frozen=True)
class _Place:
    """Where a model stands: its backbone, the run it belongs to, and whether contrastive training touched it."""

    backbone: str
    run: str | None
    trained: bool
    readout: str | None = None


def backbone_pairs(experiment: Experiment) -> list[BackbonePair]:
    """Every two different backbones of the analysed pairs, in the order of the analysis; one a readout, where several are
    compared."""
    before: dict[tuple[str, str], AnalysedPair] = {}
    after: dict[tuple[str, str], dict[str | None, AnalysedPair]] = {}
    for pair in experiment.pairs:
        if (role := role_of(experiment, pair)) in ("before", "after"):
            a, b = _place(experiment, pair.a), _place(experiment, pair.b)
            trained = after.setdefault((a.backbone, b.backbone), {})
            if role == "before":
                before.setdefault((a.backbone, b.backbone), pair)
            else:
                trained.setdefault(a.readout, pair)
    return [
        BackbonePair(
            base, variant, _kind(experiment, base, variant), before.get((base, variant)), pair, readout
        )
        for (base, variant), trained in after.items()
        for readout, pair in (trained or {None: None}).items()
    ]


def training_pairs(experiment: Experiment) -> list[AnalysedPair]:
    """Pairs of one backbone before and after contrastive training."""
    return [pair for pair in experiment.pairs if role_of(experiment, pair) == "training"]


def role_of(experiment: Experiment, pair: AnalysedPair) -> Role:
    """What a pair compares.

    Returns
    -------
    {"before", "after", "training", "seeds", "readouts", "other"}
        Two backbones as language models, or as trained embedders; one backbone before and after training; two
        seeds; two readouts; anything else, such as a language model against the embedder of another backbone.
    """
    a, b = _place(experiment, pair.a), _place(experiment, pair.b)
    if a.readout != b.readout and a.run and b.run:
        return "readouts" if a.backbone == b.backbone and a.trained and b.trained else "other"
    if a.backbone != b.backbone:
        if a.trained != b.trained:
            return "other"
        return "after" if a.trained else "before"
    if a.trained and b.trained and a.run != b.run:
        return "seeds"
    return "training" if a.trained != b.trained else "other"


def _place(experiment: Experiment, model: AnalysedModel) -> _Place:
    scheme, _, rest = model.reference.partition(":")
    if scheme == "lineage":
        return _Place(rest, None, trained=False)
    if scheme == "run":
        name, _, step = rest.partition("@")
        run = next((run for run in experiment.runs if run.name == name), None)
        backbone, readout = (run.backbone or name, run.readout) if run else (name, None)
        return _Place(backbone, name, step not in ("first", "0"), readout)
    # A folder or a Hub id: only its attention tells a language model from an embedder.
    return _Place(re.sub(r"/+$", "", model.reference), None, trained=model.attention == "bidirectional")


def _kind(experiment: Experiment, base: str, variant: str) -> str:
    stage = next((stage for stage in experiment.backbones if stage.name == variant), None)
    return training_kind(stage.kind) if stage is not None and stage.parent == base else ""


Bounds = tuple[float, float]


@dataclass(frozen=True)
class Change:
    """A difference of two values with its 95 % interval."""

    value: float
    bounds: Bounds | None

    @property
    def word(self) -> str:
        """``rose``, ``fell``, or what the interval leaves open."""
        if self.bounds is None:
            return "moved (no interval)"
        if self.bounds[0] > 0:
            return "rose"
        return "fell" if self.bounds[1] < 0 else "moved by no more than its interval allows for"


def change(
    before: float | None, first: Bounds | None, after: float | None, second: Bounds | None
) -> Change | None:
    """Difference of two values measured on the same texts.

    Notes
    -----
    Half widths add in squares, as if the two were independent. They share their texts, which mostly makes them
    move together, so the interval is rather too wide.
    """
    if before is None or after is None:
        return None
    value = after - before
    if first is None or second is None:
        return Change(value, None)
    down = math.hypot(after - second[0], first[1] - before)
    up = math.hypot(second[1] - after, before - first[0])
    return Change(value, (value - down, value + up))


def pair_change(before: AnalysedPair | None, after: AnalysedPair | None, metric: str) -> Change | None:
    """Difference of a metric at the last layer of two pairs on one probe set; None where it has no meaning."""
    if before is None or after is None or before.probe.hash != after.probe.hash:
        return None
    if before.probe.tokens != after.probe.tokens:
        return None
    first, second = before.intervals.get(metric), after.intervals.get(metric)
    return change(before.last.get(metric), first, after.last.get(metric), second)


def wilson(share: float, n: int) -> Bounds:
    """95 % interval of a share of n independent hits.

    Parameters
    ----------
    share : float
        In [0, 1].
    n : int
        Trials, > 0.

    Notes
    -----
    Wilson, J. Am. Stat. Assoc. 22 (1927) 209: the shares p with ``|share - p| <= z sqrt(p (1 - p) / n)``.
    """
    z = HALF_WIDTH**2
    middle = (share + z / (2 * n)) / (1 + z / n)
    half = HALF_WIDTH * math.sqrt(share * (1 - share) / n + z / (4 * n * n)) / (1 + z / n)
    # At shares of 0 and 1 an end is the share itself, which rounding may miss.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a linear probe: what it was fitted on and read on, and its interval."""

    key: str
    label: str
    value: float
    bounds: Bounds


_PROBES = {
    "own_a": "fitted on A, read on A",
    "a_to_b": "fitted on A, read on B",
    "own_b": "fitted on B, read on B",
    "b_to_a": "fitted on B, read on A",
}


def accuracies(transfer: dict[str, Any] | None) -> list[Accuracy]:
    """Own and transferred accuracies of a pair's probes, over its test texts."""
    transfer = transfer or {}
    n = transfer.get("n")
    if not isinstance(n, int) or n < 1:
        return []
    found = []
    for key, label in _PROBES.items():
        value = transfer.get(key)
        if isinstance(value, (int, float)):
            found.append(Accuracy(key, label, float(value), wilson(float(value), n)))
    return found
