"""Two checkpoints compared at every level: layer by layer, and as the record of a pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.errors import InputError
from reasoning_embedding.isolation import threads

from .forward import FINAL
from .instrument import Checkpoint, Instrument, ModelStates, OpenModel, PairStates, matched_layers
from .levels import reference_levels
from .measure import (
    Measured,
    finite,
    knn_rows,
    measure,
    measure_spectrum,
    measure_spectrum_of_sums,
    merged_warnings,
    names_of,
)
from .metrics.cka import cka_map, cka_of, unit_cka_map
from .metrics.correlation import correlation_map, correlation_of
from .metrics.layer import Layer
from .metrics.neighbours import knn_overlap_of
from .metrics.probe_transfer import linear_probe_transfer
from .metrics.procrustes import heldout_texts
from .metrics.result import Metric
from .metrics.spectrum import AlphaReq
from .moments import CrossMoments, PairMoments
from .probes import ProbeSet
from .uncertainty.intervals import add_intervals

#: Dimensions of a layer that are named, and the share of all variance from which they are worth a warning.
_DOMINANT, _MOST = 3, 0.5
_OF_FEATURES = ("rankme_sigma", "rankme_lambda", "participation_ratio", "isotropy", "alpha")


class Comparison:
    """Every metric of two models along the diagonal of matched layers.

    Parameters
    ----------
    states : PairStates
        The models' states on the same rows.
    probe : ProbeSet
        Texts.
    settings : config.Measuring
        Neighbourhoods, held-out share, seed.
    every_interval : bool
        Whether the metrics at the final norm get all the intervals there are, or those that cost little.
    """

    def __init__(
        self, states: PairStates, probe: ProbeSet, settings: config.Measuring, *, every_interval: bool
    ) -> None:
        self.a, self.b, self.sums = states.a, states.b, states.sums
        self.probe, self.settings = probe, settings
        self.rows = knn_rows(self.a.layers, self.b.layers, settings.seed)
        self.matched = matched_layers(len(self.a.layers), len(self.b.layers))
        held = heldout_texts(len(probe.texts), settings.heldout, settings.seed)
        self._held_rows = held[self.a.sample.documents]
        self.along = [self._measure(i, j) for i, j in self.matched]
        add_intervals(
            self.last,
            self.a.layers[-1],
            self.b.layers[-1],
            self.a.sample.documents,
            settings,
            every=every_interval,
        )

    @property
    def last(self) -> Measured:
        """Metrics at the final norm."""
        return self.along[-1]

    @property
    def names(self) -> list[str]:
        """Metrics, in the order of the levels."""
        return names_of(self.settings)

    @property
    def labels(self) -> list[tuple[str, str]]:
        """Names of the matched layers."""
        a, b = self.a.activations.layers, self.b.activations.layers
        return [(a[i], b[j]) for i, j in self.matched]

    @property
    def n(self) -> int:
        """Rows that linear metrics use."""
        return self.sums.n if self.sums else len(self.a.sample)

    @property
    def every_pair(self) -> dict[tuple[int, int], CrossMoments] | None:
        """Sums over all rows of every pair of layers; None where they were not kept."""
        cross = self.sums.cross if self.sums else {}
        return cross if len(cross) == len(self.a.layers) * len(self.b.layers) else None

    def _measure(self, i: int, j: int) -> Measured:
        return measure(
            self.a.layers[i],
            self.b.layers[j],
            self.rows.of(i, j),
            self.a.sample.documents,
            self.settings,
            sums=None if self.sums is None else (self.sums.cross[i, j], self._held_rows),
        )

    def _dominated(self, model: ModelStates, named: list[list[float]], held: float) -> str:
        dimensions = ", ".join(str(dimension) for dimension, _ in named)
        return (
            f"dimensions {dimensions} of {model.reference} hold {100 * held:.0f} % of the variance: CKA, Procrustes and "
            "cosines measure little else"
        )

    def intervals(self) -> dict[str, list[float]]:
        """Ends of the 95 % intervals over texts at the final norm, rounded, of those metrics that have one."""
        return {
            name: [round(found.low, 6), round(found.high, 6)]
            for name in self.names
            if name in self.last.metrics and (found := self.last.metrics[name].interval) is not None
        }

    def without_interval(self) -> list[str]:
        """Say of the metrics at the final norm that have no interval why."""
        names: dict[str, list[str]] = {}
        for name, metric in self.last.metrics.items():
            if metric.no_interval is not None:
                names.setdefault(metric.no_interval, []).append(name)
        return [f"{', '.join(of)}: no interval, {reason}" for reason, of in names.items()]

    def values(self, name: str) -> list[float | None]:
        """One metric along the diagonal, None where it does not exist."""
        return [finite(layer.metrics.get(name)) for layer in self.along]

    def dominant(self, index: int) -> dict[str, list[list[float]]]:
        """Of every layer of one model (0 or 1) the dimensions that vary most, and their shares of the variance."""
        model = (self.a, self.b)[index]
        layers = self.sums.layers[index] if self.sums else model.layers
        return {
            label: _largest_shares(layer.norms)
            for label, layer in zip(model.activations.layers, layers, strict=True)
        }

    def facts(self) -> dict[str, Any]:
        """Chance levels, rows and definitions of the metrics at the final norm."""
        metrics = self.last.metrics
        return {
            "chance": {name: round(m.chance, 6) for name, m in metrics.items() if m.chance is not None},
            "n": {name: m.n for name, m in metrics.items()},
            "definitions": {name: m.definition for name, m in metrics.items()},
        }

    def describe_probe(self) -> dict[str, Any]:
        """What the results file says of the probe set and of the rows used."""
        return {
            "kind": self.probe.kind,
            "hash": self.probe.hash,
            "texts": len(self.probe.texts),
            "rows": self.n,
            "kept_rows": len(self.a.sample),
            "streamed": self.sums is not None,
            "tokens": self.a.sample.tokens,
            "skipped": self.a.sample.skipped,
            "labels": self.probe.classes,
            "knn_rows": len(self.rows.context),
            "knn_rows_embedding": len(self.rows.embedding),
            "distinct_rows": self.rows.distinct,
        }

    def _bias(self) -> list[tuple[str, str]]:
        """Say of biased CKA at the final norm how far it is from the debiased one, where that is more than its noise."""
        biased, debiased = (self.last.metrics.get(name) for name in ("cka", "cka_debiased"))
        if biased is None or debiased is None or biased.interval is None:
            return []
        bias, half = biased.value - debiased.value, (biased.interval.high - biased.interval.low) / 2
        if bias <= half:
            return []
        text = (
            f"biased CKA is {bias:.3f} above the debiased one, more than half its interval ({half:.3f}), which holds its "
            f"mean at {biased.n} rows and not its value for all texts: quote debiased CKA"
        )
        return [(self.labels[-1][0], text)]

    def warnings(self) -> list[tuple[str, str]]:
        """What makes numbers less than they seem, and what the two sides do not share, as (place, warning)."""
        a, b = self.a, self.b
        found = [
            (label, text)
            for (label, _), layer in zip(self.labels, self.along, strict=True)
            for text in layer.warnings
        ]
        found += self._bias()
        for model, side in ((a, self.dominant(0)), (b, self.dominant(1))):
            for label, named in side.items():
                held = sum(share for _, share in named)
                if held > _MOST and model.width > 4 * _DOMINANT:
                    found.append((label, self._dominated(model, named, held)))
        if a.width != b.width:
            text = f"{a.width} against {b.width} dimensions: metrics that match dimensions are left out"
            found.append(("all layers", text))
        if len(a.layers) != len(b.layers):
            text = f"{len(a.layers) - 2} against {len(b.layers) - 2} layers: layers are matched by relative depth"
            found.append(("diagonal", text))
        if a.activations.causal != b.activations.causal:
            text = "one model attends causally, the other in both directions: part of the change is the attention's"
            found.append(("attention", text))
        if a.tokens != b.tokens:
            found.append(("tokens", "the tokenizers differ; means over texts are compared"))
        return found


def _largest_shares(norms: np.ndarray) -> list[list[float]]:
    """Dimension and share of the variance, largest first, of columns with these norms (D,)."""
    squares = np.square(norms)
    first = np.argsort(-squares)[:_DOMINANT]
    return [
        [int(index), round(float(squares[index] / squares.sum()), 4)] for index in first if squares.sum() > 0
    ]


def features(model: ModelStates, rule: str) -> np.ndarray:
    """Final-norm states of every text, (texts, D): of its ``last`` token, or the ``mean`` over its tokens."""
    return model.activations.last if rule == "last" else model.activations.mean


def compare(
    name: str,
    a: Checkpoint,
    b: Checkpoint,
    instrument: Instrument,
    *,
    levels: bool = True,
    sibling: Checkpoint | None = None,
) -> dict[str, Any]:
    """Compare two checkpoints on a probe set.

    Parameters
    ----------
    name : str
        The pair's name.
    a, b : Checkpoint
        The models.
    instrument : Instrument
        Probe set, settings, cache, ranks.
    levels : bool
        Whether to measure the reference levels of :mod:`.levels` too, which takes three forwards more.
    sibling : Checkpoint, optional
        A model grown like `a` from other seeds: one of those levels.

    Returns
    -------
    dict
        Ready for JSON (no NaN; None where a metric does not exist, the reason in ``warnings``): both sides,
        probe, heat maps over all pairs of layers, metrics along the diagonal and at the final norm with
        intervals, definitions and the means over shuffled rows (``chance``), reference levels, probe transfer and
        spectra.

    Raises
    ------
    InputError
        If a checkpoint cannot be used, or the tokenizers differ where rows are tokens.
    """
    say, settings = instrument.report, instrument.settings
    with threads(settings.threads):
        first = instrument.open(a)
        second = instrument.open(b, like=first)
        say(f"{name}: {a.reference} against {b.reference} on {len(instrument.probe.texts)} texts")
        states = instrument.states(first, second)
        found = Comparison(states, instrument.probe, settings, every_interval=True)
        record: dict[str, Any] = {"name": name, **_record(found)}
        if (own := _readouts(first, second, instrument)) is not None:
            record["readouts"] = own
        measured = reference_levels(first, second, states, instrument, sibling) if levels else {}
        record["levels"] = {level: one.record() for level, one in measured.items()}
    shown = ("dimension_correlation", "cka", f"knn_jaccard@{_shown_k(found)}")
    values = ((metric, record["last"][metric]) for metric in shown)
    say(f"{name}: " + ", ".join(f"{metric} {value:.3f}" for metric, value in values if value is not None))
    return record


def _readouts(a: OpenModel, b: OpenModel, instrument: Instrument) -> dict[str, Any] | None:
    """Metrics between the vectors that the two models' own readouts (pooling, heads) give the probe texts.

    None where one of them is a language model without a readout.
    """
    texts, settings = instrument.probe.texts, instrument.settings
    one, other = (model.vectors(texts, settings.max_tokens) for model in (a, b))
    if one is None or other is None:
        return None
    x, y = (Layer(side[0], dtype=np.float32) for side in (one, other))
    rows = knn_rows([x] * 2, [y] * 2, settings.seed).context
    found = measure(x, y, rows, np.arange(len(texts)), settings)
    return {
        "a": one[1],
        "b": other[1],
        "n": len(texts),
        "last": {name: finite(found.metrics.get(name)) for name in names_of(settings)},
        "warnings": found.warnings,
    }


def _record(found: Comparison) -> dict[str, Any]:
    a, b, labels = found.a, found.b, found.a.activations.layers
    warnings = found.warnings()
    warnings += [("intervals", text) for text in found.without_interval()]
    transfer = _probe_transfer(found, warnings)
    return {
        "a": a.describe(),
        "b": b.describe(),
        "probe": found.describe_probe() | {"heatmap_rows": found.n if found.every_pair else len(a.sample)},
        "layers": labels,
        "layers_a": labels,
        "layers_b": b.activations.layers,
        "heatmaps": _heat_maps(found),
        "diagonal_layers": [list(pair) for pair in found.labels],
        "diagonal": {metric: found.values(metric) for metric in found.names},
        "effective_rows": [round(layer.effective_rows, 1) for layer in found.along],
        "dominant_dimensions": {"a": found.dominant(0), "b": found.dominant(1)},
        "last": {metric: finite(found.last.metrics.get(metric)) for metric in found.names},
        "intervals": found.intervals(),
        **found.facts(),
        "probe_transfer": transfer,
        "spectrum": {"a": _spectrum(a, "last", warnings), "b": _spectrum(b, "last", warnings)},
        "spectrum_mean": {"a": _spectrum(a, "mean", warnings), "b": _spectrum(b, "mean", warnings)},
        "spectrum_rows": {"a": _row_spectrum(found, 0), "b": _row_spectrum(found, 1)},
        "warnings": merged_warnings(warnings),
    }


def _shown_k(found: Comparison) -> int:
    """Neighbourhood of the heat map: the field's usual 10, else the smallest asked for."""
    ks = found.settings.k
    return 10 if 10 in ks else min(ks)


def _heat_maps(found: Comparison) -> dict[str, list[list[float | None]] | None]:
    """Every layer of one model against every layer of the other.

    Linear metrics come from the sums over all rows where those were kept for every pair, else from the kept rows.
    """
    a, b, k = found.a.layers, found.b.layers, _shown_k(found)
    widths = found.a.width == found.b.width
    if found.every_pair is not None:
        cka, correlation = np.full((2, len(a), len(b)), np.nan)
        for (i, j), moments in found.every_pair.items():
            cka[i, j] = _value_or_nan(cka_of, moments)
            if widths:
                correlation[i, j] = _value_or_nan(correlation_of, moments)
    else:
        cka = cka_map(a, b)
        correlation = correlation_map(a, b) if widths else np.empty((0, 0))
    neighbours = np.full((len(a), len(b)), np.nan)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            rows = found.rows.of(i, j)
            if k < len(rows):
                neighbours[i, j] = knn_overlap_of(x, y, rows, k).value
    return {
        "dimension_correlation": _json(correlation) if widths else None,
        "cka": _json(cka),
        "cka_unit": _json(unit_cka_map(a, b)),
        f"knn_jaccard@{k}": _json(neighbours),
    }


def _value_or_nan(metric: Callable[[PairMoments], Metric], moments: PairMoments) -> float:
    try:
        return float(metric(moments))
    except InputError:  # a layer that does not vary
        return float("nan")


def _json(values: np.ndarray) -> list[list[float | None]]:
    return [[round(float(value), 5) if np.isfinite(value) else None for value in row] for row in values]


def _probe_transfer(found: Comparison, warnings: list[tuple[str, str]]) -> dict[str, Any] | None:
    a, b, labels = found.a, found.b, found.probe.labels
    if labels is None or a.width != b.width:
        return None
    try:
        there = linear_probe_transfer(a.activations.mean, b.activations.mean, labels)
        back = linear_probe_transfer(b.activations.mean, a.activations.mean, labels)
    except InputError as error:
        warnings.append(("probe transfer", error.what))
        return None
    warnings += [("probe transfer", text) for text in there.warnings]
    return {
        "classes": there.classes,
        "n": there.n,
        "features": f"mean, {FINAL}",
        "own_a": there.own,
        "own_b": back.own,
        "a_to_b": there.value,
        "b_to_a": back.value,
        "gap_ab": there.gap,
        "gap_ba": back.gap,
        "chance": there.chance,
        "permuted_control": there.permuted,
        "definition": there.definition,
    }


def _spectrum(model: ModelStates, rule: str, warnings: list[tuple[str, str]]) -> dict[str, Any]:
    """Record of the final-norm features of every text; warnings are added to the list."""
    rows = features(model, rule)
    found = measure_spectrum(rows)
    warnings += [(f"spectrum of {model.reference} ({rule})", text) for text in found.warnings]
    return {"n": len(rows), "features": rule, **_decay(found.metrics, _OF_FEATURES)}


def _row_spectrum(comparison: Comparison, index: int) -> dict[str, Any] | None:
    """Record of the final norm over all rows of one model (0 or 1), from its sums; None where rows were kept."""
    if comparison.sums is None:
        return None
    moments = comparison.sums.layers[index][-1]
    found = measure_spectrum_of_sums(moments).metrics
    return {
        "n": moments.n,
        "features": f"rows ({comparison.a.sample.tokens})",
        **_decay(found, ("rankme_lambda", "participation_ratio", "alpha")),
    }


def _decay(found: dict[str, Metric], names: tuple[str, ...]) -> dict[str, Any]:
    record: dict[str, Any] = {name: finite(found.get(name), 5) for name in names}
    decay = found.get("alpha")
    known = isinstance(decay, AlphaReq)
    return record | {
        "alpha_r2": round(decay.r2, 5) if known else None,
        "alpha_range": list(decay.ranks) if known else None,
        "alpha_windows": [[round(fit.alpha, 5), *fit.ranks] for fit in decay.windows] if known else None,
        "definitions": {name: metric.definition for name, metric in found.items()},
    }
