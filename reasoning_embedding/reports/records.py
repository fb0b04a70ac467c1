"""What a report knows: plain frozen records, read from files by :mod:`.collect`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reasoning_embedding.hrsa.trajectory import ProbeSummary, Trajectory
from reasoning_embedding.hrsa.uncertainty.seed_band import seed_band

from .labels import metric_label


@dataclass(frozen=True)
class Scores:
    """Scores of one model: ``tasks[task][metric]``; metrics are fractions in [0, 1]."""

    model: str
    step: int | None
    tasks: dict[str, dict[str, float]]
    sequences: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Number-sequence tasks: their whole entries. Silhouettes are no nDCG, so they are not among ``tasks``."""


@dataclass(frozen=True)
class Run:
    """One training run: its logged steps and the scores of its evaluated checkpoints by step."""

    name: str
    backbone: str | None
    seed: int | None
    metrics: tuple[dict[str, Any], ...]
    scores: dict[int, Scores]
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def first(self) -> Scores | None:
        """Scores of step 0, before any training."""
        return self.scores.get(0)

    @property
    def last(self) -> Scores | None:
        """Scores of the last evaluated step after 0."""
        later = [step for step in self.scores if step > 0]
        return self.scores[max(later)] if later else None


@dataclass(frozen=True)
class Stage:
    """One grown backbone: what its quality gates measured in each answer format, and its training log."""

    name: str
    kind: str
    parent: str | None
    gates: tuple[dict[str, Any], ...]
    """One measurement a format; the first is of the format the stage was taught, which gates hold for."""
    thresholds: dict[str, float]
    metrics: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Model:
    """One side of a comparison."""

    reference: str
    attention: str


@dataclass(frozen=True)
class Pair:
    """HRSA of two models: heat maps over layers, values a layer, and the last layer with intervals."""

    name: str
    a: Model
    b: Model
    probe: ProbeSummary
    layers_a: tuple[str, ...]
    layers_b: tuple[str, ...]
    heatmaps: dict[str, list[list[float | None]]]
    diagonal: dict[str, list[float | None]]
    last: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    chance: dict[str, float | None]
    definitions: dict[str, str]
    probe_transfer: dict[str, Any] | None
    spectrum: tuple[tuple[Model, dict[str, Any]], ...]
    """RankMe and alpha-ReQ by model and kind of features."""
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Band:
    """What a change of seed does: the noise floor that pairs are held against.

    Parameters
    ----------
    pairs : tuple of Pair
        At least one; the two members of each differ in the seed only.
    """

    pairs: tuple[Pair, ...]

    @property
    def name(self) -> str:
        """What legends call it."""
        return self.pairs[0].name if len(self.pairs) == 1 else f"{len(self.pairs)} pairs of seeds"

    @property
    def makings(self) -> str:
        """What its ends are, as the end of a sentence that begins with “the seed band is”."""
        if len(self.pairs) == 1:
            return (
                "the 95 % bootstrap interval of two models that differ in nothing but the seed "
                f"({self.pairs[0].name}): it covers the choice of texts, not the choice of more seeds"
            )
        names = ", ".join(pair.name for pair in self.pairs)
        return (
            f"the range in which one more pair of seeds would lie (95 %, Student’s t), from {len(self.pairs)} pairs whose "
            f"members differ in nothing but the seed ({names}): the fewer pairs, the wider"
        )

    def value(self, metric: str) -> float | None:
        """Mean of the pairs at the last layer; None where none has the metric."""
        values = self._values(metric)
        return sum(values) / len(values) if values else None

    def ends(self, metric: str) -> tuple[float, float] | None:
        """The band of a metric: one pair's interval, or :func:`.hrsa.band.seed_band` of several pairs' values."""
        if len(self.pairs) == 1:
            return self.pairs[0].intervals.get(metric)
        values = self._values(metric)
        if len(values) < 2:
            return None
        band = seed_band(values)
        return band.low, band.high

    def shown(self, metric: str) -> tuple[float, float] | None:
        """:meth:`ends` within what the metric can be; the tests use the ends themselves."""
        ends, (low, high) = self.ends(metric), metric_label(metric).limits or (-math.inf, math.inf)
        return ends and (max(low, ends[0]), min(high, ends[1]))

    def holds_for(self, pair: Pair | Trajectory) -> bool:
        """Whether a record was measured on the band's probe set and rows."""
        probe = self.pairs[0].probe
        return (pair.probe.hash, pair.probe.tokens) == (probe.hash, probe.tokens)

    def like(self, pair: Pair) -> bool:
        """Whether a pair was measured as the band was, and is of the same kinds of model.

        Two causal language models are not held against two embedders that differ in the seed.
        """
        first = self.pairs[0]
        return self.holds_for(pair) and {pair.a.attention, pair.b.attention} == {
            *(first.a.attention, first.b.attention)
        }

    def _values(self, metric: str) -> list[float]:
        return [value for pair in self.pairs if (value := pair.last.get(metric)) is not None]


@dataclass(frozen=True)
class Experiment:
    """Everything found in an experiment folder, or in the folder of a single run."""

    folder: Path
    name: str
    title: str
    runs: tuple[Run, ...]
    baselines: dict[str, Scores]
    stages: tuple[Stage, ...]
    pairs: tuple[Pair, ...]
    realignments: tuple[Trajectory, ...]
    seed_band: tuple[str, ...]
    """Names of the pairs whose members differ in the seed only."""
    missing: tuple[str, ...]
    """What a full report would show and this folder does not hold, one sentence each."""
    contamination: dict[str, Any] = field(default_factory=dict)
    """``contamination.json``: evaluation texts that also stand in the training data, by task."""

    @property
    def band(self) -> Band | None:
        """What a change of seed does, from those of its pairs that were analysed alike; None without any."""
        named = [pair for name in self.seed_band for pair in self.pairs if pair.name == name]
        return Band(tuple(filter(Band((named[0],)).like, named))) if named else None

    @property
    def looks(self) -> dict[str, tuple[int, int]]:
        """Colour and style of each run in the page's charts: runs of one backbone share the colour."""
        kinds = [run.backbone or run.name for run in self.runs]
        order = list(dict.fromkeys(kinds))
        return {
            run.name: (order.index(kind), kinds[:place].count(kind))
            for place, (run, kind) in enumerate(zip(self.runs, kinds, strict=True))
        }

    @property
    def band_first(self) -> list[Pair]:
        """The pairs, those of the seed band before the others."""
        seeds = self.band.pairs if self.band else ()
        return [*seeds, *(pair for pair in self.pairs if pair not in seeds)]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks anything was scored on, in the order of first appearance."""
        scores = [*self.baselines.values(), *(score for run in self.runs for score in run.scores.values())]
        return tuple(dict.fromkeys(task for score in scores for task in score.tasks))
