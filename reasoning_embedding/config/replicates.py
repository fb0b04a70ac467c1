"""Replicate designs: lineages grown again, each arm beside its placebo, and the questions named before the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from .analysis import Analysis, Pair, Realignment
from .base import Name, Positive, PositiveFloat, Section, Text, conflict
from .evaluation import Evaluation, SuiteTask
from .lineage import FineTuneStage, Gates, GivenStage, Lineage, Stage
from .reading.suggestions import did_you_mean
from .references import parse

if TYPE_CHECKING:
    from .experiment import ExperimentRun

#: HRSA metrics by which two models are compared; those of neighbours name their k, such as ``knn_jaccard@10``.
METRICS = (
    "dimension_correlation",
    "permutation_match",
    "h_inv",
    "h_inv_rescaled",
    "procrustes_residual",
    "procrustes_cosine",
    "procrustes_distance",
    "cka",
    "cka_debiased",
    "cka_unit",
    "cka_rbf",
    "gulp",
)
NEIGHBOUR_METRICS = ("knn_jaccard", "knn_mutual", "cknna")
#: What a placebo is called beside its arm.
PLACEBO = "{}-placebo"


class Measure(Section):
    """One number of every lineage and arm, and what counts as no difference in it."""

    of: Literal["embedders", "backbones", "scores"] = "embedders"
    """``embedders``, ``backbones``: an HRSA metric between the lineage's base and the arm, of the trained embedders or
    of the language models they were made of. ``scores``: the arm's own score on a task."""
    metric: Text
    """An HRSA metric, such as ``cka_debiased``, or of ``scores`` one of the task's, such as ``ndcg_at_10``."""
    task: Text | None = None
    """Of ``scores``: on which task."""
    layer: Literal["last"] | Annotated[int, Field(ge=0)] = "last"
    """Of HRSA metrics: the layer of both models, counted from 0, the embeddings."""
    scale: Literal["fisher", "logit", "plain"] = "fisher"
    """On which means and tests are made: ``fisher`` (artanh) for correlations and CKA, ``logit`` for shares such as
    overlaps, ``plain`` for the number as it is, such as a score."""
    margin: PositiveFloat
    """What counts as no difference, on that scale; named before the run, never taken from a seed band."""

    @model_validator(mode="after")
    def _task_where_scores(self) -> Measure:
        if (self.task is None) == (self.of == "scores"):
            raise conflict("a measure of scores needs a task, and no other has one", "task")
        if self.of == "scores" and self.layer != "last":
            raise conflict("scores have no layer", "layer")
        return self

    @property
    def quantity(self) -> str:
        """What it measures, without the margin: equal for measures of one number."""
        place = self.task if self.of == "scores" else f"layer {self.layer}"
        return f"{self.of}, {self.metric}, {place}"


class PrimaryMeasure(Measure):
    """The one question that is not corrected for being asked beside others."""

    arm: Name | None = None
    """Which arm; absent where there is one."""


@dataclass(frozen=True)
class Question:
    """One measure of one arm less its placebo."""

    arm: str
    measure: Measure

    @property
    def name(self) -> str:
        """Tells questions apart."""
        return f"{self.arm}: {self.measure.quantity}"


class Replicates(Section):
    """Lineages grown again from other seeds; every arm is held against a placebo of the same lineage."""

    lineages: Positive
    """How many. Fewer than 4 give differences and no verdict."""
    seeds: Positive = 1
    """Contrastive seeds of each lineage; no two lineages share one."""
    base: Name
    """The run whose backbone the arms started from."""
    arms: Annotated[list[Name], Field(min_length=1)]
    """Runs whose kind of training is asked about: each is grown from the base by SFT, DPO or RLVR. Its placebo is
    grown beside it: RLVR with a random reward that is live as often, SFT on answers of other prompts, DPO with chosen
    and rejected swapped by a coin; no gates."""
    primary: PrimaryMeasure
    """The question that was asked before the run."""
    others: list[Measure] = Field(default=[])
    """Further measures, of every arm; Holm's correction counts all of them, and the primary measure of other arms."""

    @model_validator(mode="after")
    def _arms_are_told_apart(self) -> Replicates:
        for index, arm in enumerate(self.arms):
            if arm in self.arms[:index] or arm == self.base:
                raise conflict(f"{arm!r} is named twice", "arms", index)
        if self.primary.arm is None and len(self.arms) > 1:
            raise conflict(f"of which arm? One of {', '.join(self.arms)}", "primary", "arm")
        if self.primary.arm is not None and self.primary.arm not in self.arms:
            hint = did_you_mean(self.primary.arm, self.arms)
            raise conflict(
                f"no arm {self.primary.arm!r} among {', '.join(self.arms)}{hint}", "primary", "arm"
            )
        known = [self.primary.quantity]
        for index, measure in enumerate(self.others):
            if measure.quantity in known:
                raise conflict(f"{measure.quantity} is asked twice", "others", index)
            known.append(measure.quantity)
        return self

    @property
    def questions(self) -> list[Question]:
        """Every arm's measures, the primary question first."""
        first = Question(self.primary.arm or self.arms[0], self.primary)
        measures = [self.primary, *self.others]
        asked = [Question(arm, measure) for arm in self.arms for measure in measures]
        return [first, *(question for question in asked if question.name != first.name)]

    @property
    def cells(self) -> list[tuple[int, int]]:
        """Lineage and contrastive seed of every embedder of an arm, both from 1."""
        return [
            (lineage, seed) for lineage in range(1, self.lineages + 1) for seed in range(1, self.seeds + 1)
        ]

    def run(self, name: str, lineage: int, seed: int) -> str:
        """What one lineage's run is called."""
        return f"{name}-{lineage}" if self.seeds == 1 else f"{name}-{lineage}-seed{seed}"

    def pair(self, of: str, arm: str, lineage: int, seed: int) -> str:
        """What the comparison of a lineage's base with an arm is called; backbones have no contrastive seed."""
        name = f"{of}-{self.base}-{arm}"
        return self.run(name, lineage, seed) if of == "embedders" else f"{name}-{lineage}"


def grown_stage(stage: str, lineage: int) -> str:
    """What one lineage's stage is called."""
    return f"{stage}-{lineage}"


@dataclass(frozen=True)
class _Plan:
    """A template that is repeated for every lineage."""

    replicates: Replicates
    stages: dict[str, Stage]
    backbones: dict[str, str]
    """Run -> stage."""

    @property
    def given(self) -> set[str]:
        """Stages that are the same in all lineages."""
        return {name for name, stage in self.stages.items() if isinstance(stage, GivenStage)}

    def stage(self, name: str, lineage: int) -> str:
        return name if name in self.given else grown_stage(name, lineage)

    def reference(self, text: str, lineage: int, seed: int) -> str:
        """A reference of the template as one lineage's; others stay."""
        found = parse(text)
        if found.kind == "lineage" and found.name in self.stages:
            name = self.stage(found.name, lineage)
        elif found.kind == "run" and found.name in self.backbones:
            name = self.replicates.run(found.name, lineage, seed)
        else:
            return text
        return f"{found.kind}:{name}" + (f"@{found.at}" if found.at else "")


def expand(
    replicates: Replicates,
    lineage: Lineage,
    runs: Sequence[ExperimentRun],
    analysis: Analysis | None,
    evaluation: Evaluation | None,
) -> tuple[Lineage, list[ExperimentRun], Analysis | None]:
    """Return stages, runs and comparisons of every lineage, from those of one.

    Parameters
    ----------
    replicates : Replicates
        How many, and which runs are base and arms.
    lineage : Lineage
        Stages of one lineage. Given checkpoints are shared; every other stage is grown again from its seed plus the
        lineage's number less one.
    runs : sequence of ExperimentRun
        Those of one lineage, each on one of its stages.
    analysis : Analysis or None
        Its pairs and trajectories are repeated; the pairs that the measures need are added.
    evaluation : Evaluation or None
        Has the tasks of measures of scores.

    Raises
    ------
    PydanticCustomError
        Where the base or an arm is no run, an arm was not fine-tuned from the base, or something cannot be measured.
    """
    stages = {stage.name: stage for stage in lineage.stages}
    backbones = {run.name: str(run.backbone) for run in runs}
    _check(replicates, stages, backbones)
    _check_measure(replicates.primary, analysis, evaluation, "primary")
    for index, measure in enumerate(replicates.others):
        _check_measure(measure, analysis, evaluation, "others", index)
    template: list[Stage] = []
    for stage in lineage.stages:
        template.append(stage)
        if any(backbones[arm] == stage.name for arm in replicates.arms):
            template.append(_placebo_of(stage))
    placebo_runs = [
        run.model_copy(update={"name": PLACEBO.format(run.name), "backbone": PLACEBO.format(run.backbone)})
        for run in runs
        if run.name in replicates.arms
    ]
    every = [*runs, *placebo_runs]
    plan = _Plan(
        replicates,
        {stage.name: stage for stage in template},
        {run.name: str(run.backbone) for run in every},
    )
    grown: list[Stage] = [stage for stage in template if stage.name in plan.given]
    for number in range(1, replicates.lineages + 1):
        grown += [_again(plan, stage, number) for stage in template if stage.name not in plan.given]
    trained = [
        run.model_copy(
            update={
                "name": replicates.run(run.name, number, seed),
                "backbone": plan.stage(str(run.backbone), number),
                "seed": run.seed + (number - 1) * replicates.seeds + seed - 1,
            }
        )
        for number, seed in replicates.cells
        for run in every
    ]
    lineage = lineage.model_copy(update={"stages": grown})
    return lineage, trained, None if analysis is None else _compared(plan, analysis)


def _check(
    replicates: Replicates,
    stages: dict[str, Stage],
    backbones: dict[str, str],
) -> None:
    for name, *path in (
        (replicates.base, "base"),
        *((arm, "arms", i) for i, arm in enumerate(replicates.arms)),
    ):
        if name not in backbones:
            hint = did_you_mean(name, backbones)
            known = ", ".join(backbones)
            raise conflict(
                f"{name!r} is no run on a stage of the lineage; those are {known}{hint}", "replicates", *path
            )
    root = backbones[replicates.base]
    for index, arm in enumerate(replicates.arms):
        stage = stages[backbones[arm]]
        if not isinstance(stage, FineTuneStage):
            raise conflict(
                f"arm {arm!r} is grown by {stage.kind}, which has no placebo", "replicates", "arms", index
            )
        above = stage.parent
        while above != root:
            if (parent := stages[above].needs) is None:
                raise conflict(f"arm {arm!r} does not grow from {root!r}", "replicates", "arms", index)
            above = parent


def _check_measure(
    measure: Measure, analysis: Analysis | None, evaluation: Evaluation | None, *path: str | int
) -> None:
    """Refuse what will not be there when everything is grown."""
    place = ("replicates", *path)
    if measure.of != "scores":
        if analysis is None:
            raise conflict("it compares representations: the experiment needs an analysis", *place)
        known = [*METRICS, *(f"{metric}@{k}" for metric in NEIGHBOUR_METRICS for k in analysis.k)]
        if measure.metric not in known:
            hint = did_you_mean(measure.metric, known)
            what = (
                f"no metric {measure.metric!r} of HRSA with this analysis{hint}; there are {', '.join(known)}"
            )
            raise conflict(what, *place, "metric")
        return
    if evaluation is None:
        raise conflict("it is a score: the experiment needs an evaluation", *place)
    names = [_task_name(task) for task in evaluation.tasks]
    if None not in names and measure.task not in names:
        hint = did_you_mean(str(measure.task), [name for name in names if name])
        raise conflict(f"no task {measure.task!r} among {', '.join(map(str, names))}{hint}", *place, "task")


def _task_name(task: object) -> str | None:
    """What scores call a task; None where only its data or mteb can tell."""
    name = getattr(task, "name", None)
    return None if isinstance(task, SuiteTask) else name


def _placebo_of(stage: Stage) -> Stage:
    return stage.model_copy(
        update={"name": PLACEBO.format(stage.name), "placebo_of": stage.name, "gates": Gates()}
    )


def _again(plan: _Plan, stage: Stage, number: int) -> Stage:
    """One stage of one lineage."""
    changed: dict[str, object] = {
        "name": plan.stage(stage.name, number),
        "seed": stage.seed + number - 1,
    }
    if isinstance(stage, FineTuneStage):
        changed["parent"] = plan.stage(stage.parent, number)
        if stage.placebo_of is not None:
            changed["placebo_of"] = plan.stage(stage.placebo_of, number)
    return stage.model_copy(update=changed)


def _compared(plan: _Plan, analysis: Analysis) -> Analysis:
    replicates, pairs, band = plan.replicates, list[Pair](), list[str]()
    for pair in analysis.pairs:
        known: dict[tuple[str, ...], str] = {}
        for number, seed in replicates.cells:
            ends = [
                None if end is None else plan.reference(end, number, seed)
                for end in (pair.a, pair.b, pair.sibling)
            ]
            key = tuple(map(str, ends))
            if key in known:
                continue  # it names nothing that has a seed, or no lineage
            alone = ends == [pair.a, pair.b, pair.sibling]
            of_runs = any(parse(end).kind == "run" for end in (pair.a, pair.b))
            name = replicates.run(pair.name, number, seed) if of_runs else f"{pair.name}-{number}"
            known[key] = pair.name if alone else name
            pairs.append(Pair(name=known[key], a=str(ends[0]), b=str(ends[1]), sibling=ends[2]))
        band += known.values() if pair.name in analysis.seed_pairs else ()
    names = [pair.name for pair in pairs]
    arms = [name for arm in replicates.arms for name in (arm, PLACEBO.format(arm))]
    for of in sorted({question.measure.of for question in replicates.questions} - {"scores"}):
        for number, seed in replicates.cells:
            for arm in arms:
                name = replicates.pair(of, arm, number, seed)
                if name in names:
                    continue
                names.append(name)
                a, b = (
                    f"run:{replicates.run(run, number, seed)}@last"
                    if of == "embedders"
                    else f"lineage:{plan.stage(plan.backbones[run], number)}"
                    for run in (replicates.base, arm)
                )
                pairs.append(Pair(name=name, a=a, b=b))
    return analysis.model_copy(
        update={
            "pairs": pairs,
            "realignment": _followed(plan, analysis.realignment),
            "seed_band": band or None,
        }
    )


def _followed(plan: _Plan, tracks: Sequence[Realignment]) -> list[Realignment]:
    """Every trajectory in every lineage, of its first seed."""
    found = []
    for track in tracks:
        named = track.run if ":" in track.run else f"run:{track.run}"
        for number in range(1, plan.replicates.lineages + 1):
            run = plan.reference(named, number, 1)
            against = track.against if track.against == "first" else plan.reference(track.against, number, 1)
            if run == named:
                found.append(track)
                break
            name = f"{track.name}-{number}"
            found.append(Realignment(name=name, run=run.removeprefix("run:"), against=against))
    return found
