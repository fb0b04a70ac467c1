"""An experiment: backbones grown or given, one recipe, its runs, scores and analysis."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .analysis import Analysis
from .backbone import Backbone
from .base import Name, NonNegative, Positive, Section, conflict
from .evaluation import Evaluation
from .lineage import Lineage
from .reading.suggestions import did_you_mean
from .references import parse
from .training import Recipe


class ExperimentRun(Section):
    """A run of the experiment: only its backbone and its seed are its own."""

    name: Name
    """Names the run's folder, its scores and ``run:NAME`` in ``analysis``."""
    backbone: Name | Backbone
    """The name of a stage of the lineage, or a backbone."""
    seed: NonNegative = 0
    """Of the order of rows, the negatives drawn and dropout."""


class ExperimentConfig(Section):
    """Grow, train, evaluate, analyse and report, as one content-addressed job."""

    kind: Literal["experiment"]
    name: Name
    """Names the folder below ``output_dir``."""
    output_dir: str = "runs"
    """Where experiments lie."""
    title: str | None = None
    """Heading of the report; absent: the name."""
    jobs: Positive = 1
    """Stages run side by side, each a process of its own."""
    lineage: Lineage | None = None
    """Backbones that are grown first; absent: all runs name theirs."""
    recipe: Recipe
    """What all runs share, so that only what a run names can differ."""
    runs: Annotated[list[ExperimentRun], Field(min_length=1)]
    """The embedders that are trained."""
    evaluation: Evaluation | None = None
    """What their checkpoints are scored on when all are trained."""
    analysis: Analysis | None = None
    """What HRSA compares when all are trained."""

    @model_validator(mode="after")
    def _names_resolve(self) -> ExperimentConfig:
        grown = self.lineage.stages if self.lineage else []
        stages = {stage.name for stage in grown}
        runs: set[str] = set()
        for index, run in enumerate(self.runs):
            if run.name in runs:
                raise conflict(f"two runs are named {run.name!r}", "runs", index, "name")
            runs.add(run.name)
            if isinstance(run.backbone, str) and run.backbone not in stages:
                message = f"run {run.name!r} names stage {run.backbone!r}; the lineage has {sorted(stages)}"
                raise conflict(message, "runs", index, "backbone")
        if self.analysis:
            kept = {stage.name for stage in grown if getattr(stage, "checkpoints", None)}
            self._check_references(self.analysis, stages, runs, kept)
        return self

    @staticmethod
    def _check_references(analysis: Analysis, stages: set[str], runs: set[str], kept: set[str]) -> None:
        references: list[tuple[str, tuple[str | int, ...]]] = []
        for index, pair in enumerate(analysis.pairs):
            references += [(pair.a, ("pairs", index, "a")), (pair.b, ("pairs", index, "b"))]
            references += [(pair.sibling, ("pairs", index, "sibling"))] if pair.sibling else []
        for index, track in enumerate(analysis.realignment):
            # A trajectory is a reference to all steps.
            named = track.run if track.run.startswith("lineage:") else f"run:{track.run}"
            references.append((f"{named}@first", ("realignment", index, "run")))
            if track.against != "first":
                references.append((track.against, ("realignment", index, "against")))
        for reference, path in references:
            parsed = parse(reference)
            scheme, name, step = parsed.kind, parsed.name, parsed.at
            known = {"lineage": stages, "run": runs}.get(scheme)
            if known is not None and name not in known:
                kind = {"lineage": "stage"}.get(scheme, scheme)
                what = (
                    f"there is no {kind} {name!r}"
                    if path[-1] == "run"
                    else f"{reference!r} is not known here"
                )
                raise conflict(f"{what}; known: {sorted(known)}", "analysis", *path)
            if scheme == "lineage" and step and name not in kept:
                raise conflict(f"stage {name!r} keeps no steps: give it checkpoints", "analysis", *path)
        pairs = [pair.name for pair in analysis.pairs]
        for index, name in enumerate(analysis.seed_pairs):
            place = ("analysis", "seed_band", *([] if isinstance(analysis.seed_band, str) else [index]))
            if name not in pairs:
                raise conflict(f"{name!r} is not one of the pairs{did_you_mean(name, pairs)}", *place)
            if name in analysis.seed_pairs[:index]:
                raise conflict(f"{name!r} is named twice", *place)
