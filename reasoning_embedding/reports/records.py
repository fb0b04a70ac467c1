"""What a report knows: plain frozen records, read from files by :mod:`.reading`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scipy.special import stdtrit

from reasoning_embedding.config.replicates import Replicates, grown_stage
from reasoning_embedding.hrsa.trajectory import MeasuredTrajectory, ProbeSummary
from reasoning_embedding.hrsa.uncertainty.equivalence import ALPHA
from reasoning_embedding.hrsa.uncertainty.seed_band import mean_std, seed_band

from .labels import metric_label

if TYPE_CHECKING:
    from reasoning_embedding.sweeps.ledger import Outcome

#: Half the width of a 95 % interval of a normal estimate, in standard errors.
HALF_WIDTH = 1.959964
#: Key of a sweep whose values are repetitions, not choices.
SEED = "seed"


def spread_out(count: int, most: int) -> list[int]:
    """At most so many of the places 0, 1, ..., count - 1, evenly, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(place * (count - 1) / (most - 1)) for place in range(most)})


def finite(value: Any) -> float | None:
    """A finite number of a file; None for anything else, and for what could not be computed."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


@dataclass(frozen=True)
class Scores:
    """Scores of one model: ``tasks[task][metric]``; metrics are fractions in [0, 1]."""

    model: str
    step: int | None
    tasks: dict[str, dict[str, float]]
    sequences: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Number-sequence tasks: their entries as they were written. Silhouettes are no nDCG, so they are not in ``tasks``."""
    entries: tuple[dict[str, Any], ...] = ()
    """Every scored task as its evaluation wrote it."""
    failed: tuple[dict[str, Any], ...] = ()
    """Tasks that failed: ``task``, ``error`` and, where it was known, ``type``."""
    suites: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Suite -> names of its tasks."""
    settings: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    """Where the scores lie, and those of single queries with them."""


@dataclass(frozen=True)
class Run:
    """One training run: its logged steps and the scores of its evaluated checkpoints by step."""

    name: str
    backbone: str | None
    seed: int | None
    metrics: tuple[dict[str, Any], ...]
    scores: dict[int, Scores]
    manifest: dict[str, Any] = field(default_factory=dict)
    compressed: tuple[Scores, ...] = ()
    """Of truncated and quantized vectors, whose ``settings`` say what was kept."""
    readout: str | None = None
    """Name of its readout, where the experiment compares several."""
    best_step: int | None = None
    """Step that the run's own evaluation chose; None where it was not scored while it trained."""

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
class GrownBackbone:
    """One grown backbone: what its quality gates measured in each answer format, and its training log."""

    name: str
    kind: str
    parent: str | None
    gates: tuple[dict[str, Any], ...]
    """One measurement a format; the first is of the format the stage was taught, which gates hold for."""
    thresholds: dict[str, float]
    metrics: tuple[dict[str, Any], ...]
    weight_change: float | None = None
    """Norm of the change from the parent's weights."""
    live_updates: int | None = None
    """Of RLVR: steps in which the samples of some prompt were rewarded differently."""


@dataclass(frozen=True)
class AnalysedModel:
    """A model that was analysed: its reference, and how it attends."""

    reference: str
    attention: str


@dataclass(frozen=True)
class LevelValues:
    """What a pair is held against: the same metrics where the two sides share less, such as fresh weights."""

    meaning: str
    last: dict[str, float | None]
    diagonal: dict[str, list[float | None]]


@dataclass(frozen=True)
class AnalysedPair:
    """HRSA of two models: heat maps over layers, values a layer, and the last layer with intervals."""

    name: str
    a: AnalysedModel
    b: AnalysedModel
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
    spectrum: tuple[tuple[AnalysedModel, dict[str, Any]], ...]
    """RankMe and alpha-ReQ by model and kind of features."""
    warnings: tuple[str, ...]
    levels: dict[str, LevelValues] = field(default_factory=dict)
    """By name: ``random_initialisation``, ``other_texts``, ``sibling``; none in records of older versions."""
    effective_rows: tuple[float, ...] = ()
    """Of each matched pair of layers: how many rows carry the variance."""
    rows: int | None = None
    """How many rows were compared."""


def shared_probe(records: Sequence[AnalysedPair | MeasuredTrajectory]) -> str:
    """The probe set of all records; empty where they have several, or there are none."""
    probes = {(record.probe.hash, str(record.probe)) for record in records}
    return probes.pop()[1] if len(probes) == 1 else ""


@dataclass(frozen=True)
class Band:
    """What a change of seed does: the noise floor that pairs are held against.

    Parameters
    ----------
    pairs : tuple of AnalysedPair
        At least one; the two members of each differ in the seed only.
    """

    pairs: tuple[AnalysedPair, ...]

    @property
    def name(self) -> str:
        """What legends call it."""
        return self.pairs[0].name if len(self.pairs) == 1 else f"{len(self.pairs)} pairs of seeds"

    @property
    def description(self) -> str:
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
        """The band of a metric: one pair's interval, or the seed band of several pairs' values.

        See :func:`~reasoning_embedding.hrsa.uncertainty.seed_band.seed_band`.
        """
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

    def same_probe(self, pair: AnalysedPair | MeasuredTrajectory) -> bool:
        """Whether a record was measured on the band's probe set and rows."""
        probe = self.pairs[0].probe
        return (pair.probe.hash, pair.probe.tokens) == (probe.hash, probe.tokens)

    def comparable(self, pair: AnalysedPair) -> bool:
        """Whether a pair was measured as the band was, and is of the same kinds of model.

        Two causal language models are not held against two embedders that differ in the seed.
        """
        first = self.pairs[0]
        return self.same_probe(pair) and {pair.a.attention, pair.b.attention} == {
            *(first.a.attention, first.b.attention)
        }

    def _values(self, metric: str) -> list[float]:
        return [value for pair in self.pairs if (value := pair.last.get(metric)) is not None]


#: Where a pair's interval lies to the seed band.
Place = Literal["inside", "closer", "farther", "across"]


def band_place(pair: AnalysedPair, band: Band | None, metric: str) -> Place | None:
    """Say where a pair's 95 % interval at the last layer lies to the seed band; a description, no test.

    Parameters
    ----------
    pair : AnalysedPair
        Not placed where it is itself part of the band.
    band : Band or None
        What a change of seed does.
    metric : str
        A metric of both.

    Returns
    -------
    {"inside", "closer", "farther", "across"} or None
        ``inside``: the whole interval; ``closer`` and ``farther``: it lies outside, and the models are more or less alike
        than the pairs of seeds; ``across``: it crosses an end. None where either has no interval, the metric no direction,
        or the band does not apply.

    Notes
    -----
    The band is no margin: few seeds make it wide. What a kind of training does is asked over lineages
    (:mod:`.replicates`); these words are about two checkpoints, on these texts.
    """
    bounds, direction = pair.intervals.get(metric), metric_label(metric).higher_is_closer
    if band is None or pair.last.get(metric) is None or bounds is None or direction is None:
        return None
    if pair in band.pairs or not band.comparable(pair):
        return None
    ends = band.ends(metric)
    if ends is None or not ends[0] < ends[1]:
        return None
    if ends[0] <= bounds[0] and bounds[1] <= ends[1]:
        return "inside"
    if bounds[0] <= ends[1] and ends[0] <= bounds[1]:
        return "across"
    return "closer" if (bounds[0] > ends[1]) == direction else "farther"


@dataclass(frozen=True)
class Experiment:
    """Everything found in an experiment folder, or in the folder of a single run."""

    folder: Path
    name: str
    title: str
    runs: tuple[Run, ...]
    baselines: dict[str, Scores]
    backbones: tuple[GrownBackbone, ...]
    pairs: tuple[AnalysedPair, ...]
    trajectories: tuple[MeasuredTrajectory, ...]
    seed_band: tuple[str, ...]
    """Names of the pairs whose members differ in the seed only."""
    missing: tuple[str, ...]
    """What a full report would show and this folder does not hold, one sentence each."""
    contamination: dict[str, Any] = field(default_factory=dict)
    """``contamination.json``: evaluation texts that also stand in the training data, by task."""
    replicates: Replicates | None = None
    """The design, where lineages were grown again."""

    @property
    def stage_of_run(self) -> dict[str, str]:
        """Stage of every run of a replicate design, both as one lineage's are called in its template."""
        if self.replicates is None:
            return {}
        first, stages = self.replicates.run("", 1, 1), {}
        for run in self.runs:
            if run.backbone is not None and run.name.endswith(first):
                stages[run.name.removesuffix(first)] = run.backbone.removesuffix(grown_stage("", 1))
        return stages

    @property
    def own_bases(self) -> bool:
        """Whether every lineage of a replicate design has a base of its own; else all arms grew from one that was given."""
        if self.replicates is None:
            return False
        names = {
            self.replicates.run(self.replicates.base, lineage, 1) for lineage, _ in self.replicates.cells
        }
        bases = {run.backbone for run in self.runs if run.name in names}
        return len(bases) == len(names)

    @property
    def band(self) -> Band | None:
        """What a change of seed does, from those of its pairs that were analysed alike; None without any."""
        named = [pair for name in self.seed_band for pair in self.pairs if pair.name == name]
        return Band(tuple(filter(Band((named[0],)).comparable, named))) if named else None

    @property
    def looks(self) -> dict[str, tuple[int, int]]:
        """Colour and style of each run in the page's charts: runs of one backbone and readout share the colour."""
        kinds = [(run.backbone or run.name, run.readout) for run in self.runs]
        order = list(dict.fromkeys(kinds))
        return {
            run.name: (order.index(kind), kinds[:place].count(kind))
            for place, (run, kind) in enumerate(zip(self.runs, kinds, strict=True))
        }

    def sides(self, pair: AnalysedPair) -> str:
        """What the two runs of a pair are: backbone, readout and seed, each once where both have it.

        Empty where the experiment compares no readouts, or a side is none of its runs.
        """
        runs = {run.name: run for run in self.runs}
        sides = [
            runs.get(model.reference.removeprefix("run:").partition("@")[0]) for model in (pair.a, pair.b)
        ]
        axes = [
            (run.backbone or run.name, run.readout, f"seed {run.seed}")
            for run in sides
            if run and run.readout
        ]
        if len(axes) < 2:
            return ""
        return ", ".join(a if a == b else f"{a} v {b}" for a, b in zip(*axes, strict=True))

    @property
    def band_first(self) -> list[AnalysedPair]:
        """The pairs, those of the seed band before the others."""
        seeds = self.band.pairs if self.band else ()
        return [*seeds, *(pair for pair in self.pairs if pair not in seeds)]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks anything was scored on, in the order of first appearance."""
        scores = [*self.baselines.values(), *(score for run in self.runs for score in run.scores.values())]
        return tuple(dict.fromkeys(task for score in scores for task in score.tasks))


@dataclass(frozen=True)
class SweepPoint:
    """Finished runs of a sweep that differ in their seed only."""

    point: dict[str, Any]
    values: dict[int, float]
    """Value by seed."""

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return mean_std(list(self.values.values()))[0]

    @property
    def half_width(self) -> float | None:
        """Half of the t interval of the mean; None for one seed."""
        return half_width(list(self.values.values()))


@dataclass(frozen=True)
class SweepRecord:
    """What a sweep's page shows."""

    name: str
    title: str
    metric: str
    less_is_better: bool
    outcomes: tuple[Outcome, ...]

    @property
    def keys(self) -> list[str]:
        """Keys that vary, in the order of the sweep."""
        return list(dict.fromkeys(key for outcome in self.outcomes for key in outcome.run.point))

    @property
    def measured(self) -> list[tuple[Outcome, float]]:
        """Finished runs with their values, the best first."""
        found = [(outcome, outcome.value) for outcome in self.outcomes if outcome.value is not None]
        return sorted(found, key=lambda item: self._rank(item[1]))

    @property
    def points(self) -> list[SweepPoint]:
        """Points with the values of their seeds, the best mean first."""
        found: dict[str, SweepPoint] = {}
        for outcome, value in self.measured:
            point = {key: setting for key, setting in outcome.run.point.items() if key != SEED}
            same = found.setdefault(json.dumps(point, sort_keys=True), SweepPoint(point, {}))
            same.values[outcome.run.config.seed] = value
        return sorted(found.values(), key=lambda point: self._rank(point.mean))

    def _rank(self, value: float) -> float:
        """Sorts better values first."""
        return value if self.less_is_better else -value


def half_width(values: Sequence[float]) -> float | None:
    """Half of the two-sided t interval of a mean, of 1 - ``ALPHA``; None for one value.

    Notes
    -----
    ``t(n - 1, 1 - alpha / 2) s / sqrt(n)`` with ``s`` the sample standard deviation.
    """
    _, spread = mean_std(values)
    if spread is None:
        return None
    return float(stdtrit(len(values) - 1, 1 - ALPHA / 2)) * spread / math.sqrt(len(values))
