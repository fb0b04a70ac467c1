"""An experiment: backbones grown or given, one recipe, its runs, scores and analysis."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .analysis import Analysis
from .backbone import Backbone
from .base import Name, NonNegative, Positive, Section
from .evaluation import Evaluation
from .lineage import Lineage
from .training import Recipe


class ExperimentRun(Section):
    """A run of the experiment: only its backbone and its seed are its own."""

    name: Name
    backbone: Name | Backbone
    """The name of a stage of the lineage, or a backbone."""
    seed: NonNegative = 0


class ExperimentConfig(Section):
    """Grow, train, evaluate, analyse and report, as one content-addressed job."""

    kind: Literal["experiment"]
    name: Name
    output_dir: str = "runs"
    title: str | None = None
    jobs: Positive = 1
    """Stages run side by side, each a process of its own."""
    lineage: Lineage | None = None
    recipe: Recipe
    runs: Annotated[list[ExperimentRun], Field(min_length=1)]
    evaluation: Evaluation | None = None
    analysis: Analysis | None = None

    @model_validator(mode="after")
    def _names_resolve(self) -> ExperimentConfig:
        stages = {stage.name for stage in self.lineage.stages} if self.lineage else set()
        runs: set[str] = set()
        for run in self.runs:
            if run.name in runs:
                raise ValueError(f"two runs are named {run.name!r}")
            runs.add(run.name)
            if isinstance(run.backbone, str) and run.backbone not in stages:
                raise ValueError(f"run {run.name!r} names stage {run.backbone!r}; the lineage has {sorted(stages)}")
        if self.analysis:
            self._check_references(self.analysis, stages, runs)
        return self

    @staticmethod
    def _check_references(analysis: Analysis, stages: set[str], runs: set[str]) -> None:
        references = [(pair.name, ref) for pair in analysis.pairs for ref in (pair.a, pair.b)]
        references += [(track.name, track.against) for track in analysis.realignment if track.against != "first"]
        for name, reference in references:
            scheme, _, rest = reference.partition(":")
            known = {"lineage": stages, "run": runs}.get(scheme)
            if known is not None and rest.partition("@")[0] not in known:
                raise ValueError(f"{name!r} refers to {reference!r}; known: {sorted(known)}")
        for track in analysis.realignment:
            if track.run not in runs:
                raise ValueError(f"realignment {track.name!r} names run {track.run!r}; known: {sorted(runs)}")
        if analysis.seed_band is not None and analysis.seed_band not in {pair.name for pair in analysis.pairs}:
            raise ValueError(f"seed_band {analysis.seed_band!r} is not one of the pairs")
