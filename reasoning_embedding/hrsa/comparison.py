"""Two measured models, layer by layer: the numbers that pair records, trajectories and tracks are made of."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from reasoning_embedding import config

from .instrument import Sides, matched_layers
from .measure import LINEAR, Measured, finite, knn_rows, measure, metric_names
from .metrics.layer import Layer
from .metrics.result import Interval, Metric
from .moments import CrossMoments
from .probes import ProbeSet
from .streaming import heldout_texts, streamed_metrics
from .uncertainty.intervals import quick_intervals, recomputed_intervals

#: Of a metric at the final norm, the ends of its 95 % interval over texts.
Intervals = dict[str, list[float]]


class Comparison:
    """Every metric of two models along the diagonal of matched layers.

    Parameters
    ----------
    sides : Sides
        The models, measured on the same rows.
    probe : ProbeSet
        Texts.
    settings : config.Measuring
        Neighbourhoods, held-out share, seed.
    """

    def __init__(self, sides: Sides, probe: ProbeSet, settings: config.Measuring) -> None:
        self.a, self.b, self.stream = sides.a, sides.b, sides.stream
        self.probe, self.settings = probe, settings
        self.rows = knn_rows(self.a, self.b, settings.seed)
        self.matched = matched_layers(len(self.a.layers), len(self.b.layers))
        self._moved: dict[str, float] = {}
        self.along = [self._measure(i, j) for i, j in self.matched]

    @property
    def last(self) -> Measured:
        """Metrics at the final norm."""
        return self.along[-1]

    @property
    def names(self) -> list[str]:
        """Metrics, in the order of the levels."""
        return metric_names(self.settings.k)

    @property
    def labels(self) -> list[tuple[str, str]]:
        """Names of the matched layers."""
        a, b = self.a.activations.layers, self.b.activations.layers
        return [(a[i], b[j]) for i, j in self.matched]

    @property
    def n(self) -> int:
        """Rows that linear metrics use."""
        return self.stream.n if self.stream else len(self.a.sample)

    @property
    def every_pair(self) -> dict[tuple[int, int], CrossMoments] | None:
        """Sums over all rows of every pair of layers; None where they were not kept."""
        cross = self.stream.cross if self.stream else {}
        return cross if len(cross) == len(self.a.layers) * len(self.b.layers) else None

    def _measure(self, i: int, j: int) -> Measured:
        # Of the final norm the kept rows' linear metrics are wanted all the same: their intervals are.
        linear = self.stream is None or (i, j) == self.matched[-1]
        rows, documents = self.rows.of(i, j), self.a.sample.documents
        found = measure(self.a.layers[i], self.b.layers[j], rows, documents, self.settings, linear=linear)
        return found if self.stream is None else self._over_all_rows(found, i, j)

    def _over_all_rows(self, found: Measured, i: int, j: int) -> Measured:
        """Put what the sums over all rows give in the place of what the kept rows gave."""
        assert self.stream is not None
        streamed = streamed_metrics(self.stream.cross[i, j])
        values = dict(streamed.values)
        if streamed.fit is not None:
            cosines = streamed.fit.row_cosines(*self._heldout_rows(i, j))
            if len(cosines):
                values["procrustes_cosine"] = float(cosines.mean()), 0.0, len(cosines)
        for name, definition in LINEAR.items():
            if (kept := found.metrics.pop(name, None)) is not None:
                found.warnings = [text for text in found.warnings if text not in kept.warnings]
            if name in values:
                value, chance, n = values[name]
                found.metrics[name] = Metric(value=value, n=n, definition=definition, chance=chance)
                self._moved[name] = value - (kept.value if kept else value)
        found.warnings += streamed.warnings
        return found

    def _heldout_rows(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        held = heldout_texts(len(self.probe.texts), self.settings.heldout, self.settings.seed)
        rows = held[self.a.sample.documents]
        return self.a.layers[i].rows[rows], self.b.layers[j].rows[rows]

    @cached_property
    def intervals(self) -> Intervals:
        """95 % bootstrap intervals over texts at the final norm, of the metrics for which they cost little.

        Of a metric over all rows, the interval of the kept rows moved onto its value: somewhat too wide.
        """
        return _ends(quick_intervals(*self._final(), self.settings.seed), self._moved)

    @property
    def step_intervals(self) -> tuple[Intervals, list[str]]:
        """What ``intervals`` asks for: those that cost little, or all; and why any of them is missing."""
        return self.all_intervals if self.settings.intervals == "all" else (self.intervals, [])

    @cached_property
    def all_intervals(self) -> tuple[Intervals, list[str]]:
        """The same with the metrics that are computed anew for every replicate, and why any of them is missing."""
        made, said = recomputed_intervals(*self._final(), self.settings)
        return {**self.intervals, **_ends(made, {})}, said

    def _final(self) -> tuple[Layer, Layer, np.ndarray, Measured]:
        return self.a.layers[-1], self.b.layers[-1], self.a.sample.documents, self.last

    def values(self, name: str) -> list[float | None]:
        """One metric along the diagonal, None where it does not exist."""
        return [finite(layer.metrics.get(name)) for layer in self.along]

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
            "streamed": self.stream is not None,
            "tokens": self.a.sample.tokens,
            "labels": self.probe.classes,
            "knn_rows": len(self.rows.context),
            "knn_rows_embedding": len(self.rows.embedding),
            "distinct_rows": self.rows.distinct,
        }

    def warnings(self) -> list[tuple[str, str]]:
        """What makes numbers less than they seem, and what the two sides do not share, as (place, warning)."""
        a, b = self.a, self.b
        found = [
            (label, text)
            for (label, _), layer in zip(self.labels, self.along, strict=True)
            for text in layer.warnings
        ]
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


def _ends(found: dict[str, Interval], moved: dict[str, float]) -> Intervals:
    shifts = {name: moved.get(name, 0.0) for name in found}
    return {
        name: [round(i.low + shifts[name], 6), round(i.high + shifts[name], 6)] for name, i in found.items()
    }
