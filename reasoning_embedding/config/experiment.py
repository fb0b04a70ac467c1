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
from .references import Reference, parse
from .replicates import Replicates, expand
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
    replicates: Replicates | None = None
    """Grow everything again: stages, runs and pairs above are those of one lineage, and are repeated for each."""

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
            self._check_seed_band(self.analysis)
        if self.replicates is not None:
            self._repeat(self.replicates)
        return self

    def _repeat(self, replicates: Replicates) -> None:
        """Write down what every lineage grows, trains and compares; a configuration that was resolved has it."""
        names = {run.name for run in self.runs}
        if replicates.base not in names and replicates.run(replicates.base, 1, 1) in names:
            return
        if self.lineage is None:
            raise conflict("lineages are grown: the experiment needs a lineage", "replicates")
        for index, run in enumerate(self.runs):
            if not isinstance(run.backbone, str):
                message = f"run {run.name!r} stands on no stage of the lineage, so it cannot be repeated"
                raise conflict(message, "runs", index, "backbone")
        template = [(run.name, str(run.backbone), run.seed) for run in self.runs]
        lineage, runs, analysis = expand(replicates, self.lineage, template, self.analysis)
        # The section is frozen for everyone but its own validation.
        self.__dict__ |= {
            "lineage": lineage,
            "runs": [ExperimentRun(name=name, backbone=stage, seed=seed) for name, stage, seed in runs],
            "analysis": analysis,
        }

    def _check_seed_band(self, analysis: Analysis) -> None:
        """Members of a seed band differ in their seeds and in nothing else, as far as this file says what they are."""
        pairs = {pair.name: pair for pair in analysis.pairs}
        for index, name in enumerate(analysis.seed_pairs):
            a, b = parse(pairs[name].a), parse(pairs[name].b)
            one, other = self._without_seeds(a), self._without_seeds(b)
            if one is None or other is None:
                continue  # a path: what lies there is looked at when it is compared
            place = ("analysis", "seed_band", *([] if isinstance(analysis.seed_band, str) else [index]))
            if one != other:
                raise conflict(
                    f"{a.text!r} and {b.text!r} of {name!r} differ in more than their seeds", *place
                )
            if (a.name, a.at) == (b.name, b.at):
                raise conflict(f"{name!r} compares {a.text!r} with itself", *place)

    def _without_seeds(self, reference: Reference) -> object | None:
        """What a member of a pair is but for seeds and names; None where this file does not say."""
        stages = {stage.name: stage for stage in self.lineage.stages} if self.lineage else {}

        def grown(name: str) -> tuple[object, ...]:
            stage = stages[name]
            own = stage.model_dump(
                mode="json", exclude={"name", "seed", "parent", "placebo_of", "threads", "gates"}
            )
            placebo = getattr(stage, "placebo_of", None)
            return (own, placebo is not None, *(grown(stage.needs) if stage.needs else ()))

        if reference.kind == "lineage":
            return "lineage", grown(reference.name), reference.at
        if reference.kind == "run":
            backbone = next(run.backbone for run in self.runs if run.name == reference.name)
            known = grown(backbone) if isinstance(backbone, str) else backbone.model_dump(mode="json")
            return "run", known, reference.at or "last"
        return None

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
