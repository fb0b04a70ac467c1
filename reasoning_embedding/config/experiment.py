"""An experiment: backbones grown or given, one recipe, its runs, scores and analysis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from .analysis import Analysis
from .backbone import Backbone
from .base import Name, NonNegative, Positive, Section, conflict
from .evaluation import Evaluation
from .lineage import Lineage
from .reading.suggestions import did_you_mean
from .readout import ReadoutSettings
from .references import Reference, parse
from .replicates import Replicates, expand
from .training import Recipe


class ExperimentRun(Section):
    """A run of the experiment: only its backbone, its readout and its seed are its own."""

    name: Name
    """Names the run's folder, its scores and ``run:NAME`` in ``analysis``."""
    backbone: Name | Backbone
    """The name of a stage of the lineage, or a backbone."""
    readout: Name | None = None
    """The name of one of ``readouts``, where the experiment compares several; absent: the recipe's."""
    seed: NonNegative = 0
    """Of the order of rows, the negatives drawn and dropout."""


class RunGrid(Section):
    """A run of every backbone with every readout and every seed, named ``BACKBONE-READOUT-seedN``."""

    backbones: Annotated[list[Name], Field(min_length=1)]
    """Stages of the lineage."""
    readouts: Annotated[list[Name], Field(min_length=1)] | None = None
    """Names of ``readouts``; absent: all of them."""
    seeds: Annotated[list[NonNegative], Field(min_length=1)] = Field(default=[0])
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
    readouts: dict[Name, ReadoutSettings] = Field(default={})
    """Readouts that are compared, by name. A key left out is what the recipe's ``readout`` says."""
    runs: list[ExperimentRun] = Field(default=[])
    """The embedders that are trained."""
    grid: RunGrid | None = Field(default=None, exclude=True)
    """In the place of ``runs``: backbones x readouts x seeds."""
    evaluation: Evaluation | None = None
    """What their checkpoints are scored on when all are trained."""
    analysis: Analysis | None = None
    """What HRSA compares when all are trained."""
    replicates: Replicates | None = None
    """Grow everything again: stages, runs and pairs above are those of one lineage, and are repeated for each."""

    @model_validator(mode="after")
    def _runs_of_grid(self) -> ExperimentConfig:
        if self.grid is None:
            if not self.runs:
                raise conflict("an experiment trains something: give runs, or a grid of them", "runs")
            return self
        if self.runs:
            raise conflict("give runs or a grid, not both", "grid")
        self._check_grid(self.grid)
        readouts = self.grid.readouts or [*self.readouts] or [None]
        runs = [
            ExperimentRun(
                name="-".join([backbone, *([readout] if readout else []), f"seed{seed}"]),
                backbone=backbone,
                readout=readout,
                seed=seed,
            )
            for backbone in self.grid.backbones
            for readout in readouts
            for seed in self.grid.seeds
        ]
        return self.model_copy(update={"runs": runs, "grid": None})

    def _check_grid(self, grid: RunGrid) -> None:
        stages = [stage.name for stage in self.lineage.stages] if self.lineage else []
        axes: dict[str, tuple[Sequence[str | int], Sequence[str | int] | None]] = {
            "backbones": (grid.backbones, stages),
            "readouts": (grid.readouts or [], list(self.readouts)),
            "seeds": (grid.seeds, None),
        }
        for axis, (values, known) in axes.items():
            for index, value in enumerate(values):
                if known is not None and value not in known:
                    what = f"{value!r} is none of the {'stages' if axis == 'backbones' else axis}: {known}"
                    raise conflict(what, "grid", axis, index)
                if value in values[:index]:
                    raise conflict(f"{value!r} stands twice", "grid", axis, index)

    @model_validator(mode="after")
    def _readouts_fit(self) -> ExperimentConfig:
        said: dict[str, str] = {}
        for name in self.readouts:
            same = self.readout(name).model_dump_json()
            if same in said:
                raise conflict(f"{name!r} and {said[same]!r} say the same", "readouts", name)
            said[same] = name
        cells: dict[str, str] = {}
        for index, run in enumerate(self.runs):
            if run.readout is None and self.readouts:
                message = f"run {run.name!r} names no readout; this experiment has {list(self.readouts)}"
                raise conflict(message, "runs", index)
            if run.readout is not None and run.readout not in self.readouts:
                hint = did_you_mean(run.readout, self.readouts)
                raise conflict(f"there is no readout {run.readout!r}{hint}", "runs", index, "readout")
            cell = run.model_dump_json(exclude={"name"})
            if self.readouts and cell in cells:
                message = (
                    f"runs {cells[cell]!r} and {run.name!r} are one: the same backbone, readout and seed"
                )
                raise conflict(message, "runs", index)
            cells[cell] = run.name
        for name in self.readouts:
            if all(run.readout != name for run in self.runs):
                raise conflict(f"no run has readout {name!r}", "readouts", name)
        return self

    def readout(self, name: str | None) -> ReadoutSettings:
        """Return what the runs of a readout say: the recipe's keys, and its own in their place.

        Parameters
        ----------
        name : str or None
            One of ``readouts``; None: the recipe's.
        """
        if name is None:
            return self.recipe.readout
        own = {key: value for key, value in self.readouts[name] if value is not None}
        try:
            return ReadoutSettings.model_validate(dict(self.recipe.readout) | own)
        except ValidationError as error:
            message = f"with the recipe's readout: {error.errors()[0]['msg']}"
            raise conflict(message, "readouts", name) from error

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
        lineage, runs, analysis = expand(replicates, self.lineage, self.runs, self.analysis, self.evaluation)
        # The section is frozen for everyone but its own validation.
        self.__dict__ |= {"lineage": lineage, "runs": runs, "analysis": analysis}

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
            run = next(run for run in self.runs if run.name == reference.name)
            known = (
                grown(run.backbone) if isinstance(run.backbone, str) else run.backbone.model_dump(mode="json")
            )
            return "run", known, run.readout, reference.at or "last"
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
