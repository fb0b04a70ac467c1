"""What a report knows: plain frozen records, read from files by :mod:`.collect`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
class Probe:
    """The texts an analysis looked at; every HRSA number belongs to one."""

    kind: str
    texts: int | None
    rows: int | None
    tokens: str
    hash: str

    def __str__(self) -> str:
        parts = [self.kind]
        if self.texts is not None:
            parts.append(f"{self.texts} texts")
        if self.rows is not None:
            parts.append(f"{self.rows} rows")
        parts.append(
            {"all": "all tokens", "last": "last token", "mean": "text means"}.get(self.tokens, self.tokens)
        )
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Pair:
    """HRSA of two models: heat maps over layers, values a layer, and the last layer with intervals."""

    name: str
    a: Model
    b: Model
    probe: Probe
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
class Realignment:
    """One reference against every checkpoint of a run."""

    name: str
    run: str
    against: str
    probe: Probe
    steps: tuple[int, ...]
    series: dict[str, list[float | None]]
    series_mean: dict[str, list[float | None]]
    spectrum: dict[str, list[float | None]]
    features: str
    """What the spectrum was taken of: the texts' ``last`` tokens or their ``mean``."""
    chance: dict[str, float | None]
    warnings: tuple[str, ...]
    intervals: dict[str, list[tuple[float, float] | None]] = field(default_factory=dict)
    """Ends of the interval of each step of ``series``, where there is one."""
    layers: tuple[str, ...] = ()
    series_layers: dict[str, list[list[float | None]]] = field(default_factory=dict)
    """Each metric by step and layer."""
    definitions: dict[str, str] = field(default_factory=dict)


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
    realignments: tuple[Realignment, ...]
    seed_band: str | None
    missing: tuple[str, ...]
    """What a full report would show and this folder does not hold, one sentence each."""
    contamination: dict[str, Any] = field(default_factory=dict)
    """``contamination.json``: evaluation texts that also stand in the training data, by task."""

    @property
    def band(self) -> Pair | None:
        """The pair whose members differ in the seed only, if it was analysed."""
        return next((pair for pair in self.pairs if pair.name == self.seed_band), None)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks anything was scored on, in the order of first appearance."""
        scores = [*self.baselines.values(), *(score for run in self.runs for score in run.scores.values())]
        return tuple(dict.fromkeys(task for score in scores for task in score.tasks))
