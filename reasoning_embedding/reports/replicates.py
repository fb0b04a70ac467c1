"""Arms against their placebo over lineages: what was asked before the run, answered by table and sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reasoning_embedding.config.replicates import PLACEBO, Measure, Question, Replicates, grown_stage
from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.uncertainty.replicates import (
    LINEAGES,
    ReplicatedEffect,
    check_scale,
    replicated_effects,
)

from .grid import Cell, Grid, named_columns
from .labels import SCORE, SCORE_KEY, brackets, metric_label, number, replicate_label, signed
from .reading import read_query_scores
from .records import Experiment, GrownBackbone, Run

_SCALES = {"fisher": "in Fisher's z", "logit": "in log-odds", "plain": ""}


@dataclass(frozen=True)
class Answer:
    """What the lineages say to one question.

    Parameters
    ----------
    question : Question
        Arm and measure.
    placebo, variant : tuple of tuple of float
        Value of each lineage and contrastive seed.
    effect : ReplicatedEffect or None
        The test over lineages; None where there is none, for the reason in `untested`.
    queries : (float, int) or None
        Of a score: standard error of the difference over queries, and how many there are.
    seeds : float or None
        Standard deviation of the difference over contrastive seeds of a lineage; None where each has one.
    primary : bool
        Whether this question was named as the one not corrected.
    untested : str
        Why there is no test, or no word.
    """

    question: Question
    placebo: tuple[tuple[float, ...], ...]
    variant: tuple[tuple[float, ...], ...]
    effect: ReplicatedEffect | None
    queries: tuple[float, int] | None
    seeds: float | None
    primary: bool
    untested: str = ""

    @property
    def differences(self) -> np.ndarray:
        """Arm less placebo of each lineage, averaged over contrastive seeds, as the metric is read: (lineages,)."""
        return np.array([np.mean(v) - np.mean(p) for p, v in zip(self.placebo, self.variant, strict=True)])

    @property
    def spread(self) -> float | None:
        """Standard deviation of :attr:`differences`; None for one lineage."""
        return float(self.differences.std(ddof=1)) if len(self.differences) > 1 else None


def answers(experiment: Experiment) -> tuple[list[Answer], list[str]]:
    """Answer every question of an experiment's replicate design.

    Returns
    -------
    tuple of list
        The answers, the primary question first; and what is missing, a sentence each.
    """
    design = experiment.replicates
    if design is None:
        return [], []
    placebo: dict[str, list[list[float]]] = {}
    variant: dict[str, list[list[float]]] = {}
    missing, untested = [], dict[str, str]()
    for question in design.questions:
        arms = [_values(experiment, design, name, question.measure) for name in _two(question.arm)]
        absent = [name for values, name in zip(arms, _two(question.arm), strict=True) if values is None]
        if absent:
            missing.append(f"{question.name}: not every lineage of {' and '.join(absent)} was measured")
            continue
        placebo[question.name], variant[question.name] = arms[0] or [], arms[1] or []
        try:
            for values in (*placebo[question.name], *variant[question.name]):
                check_scale(values, question.measure.scale, question.name)
        except InputError as error:
            untested[question.name] = str(error)
    effects = _effects(design, placebo, variant, untested, paired=experiment.own_bases)
    found = [
        Answer(
            question=question,
            placebo=tuple(map(tuple, placebo[question.name])),
            variant=tuple(map(tuple, variant[question.name])),
            effect=effects.get(question.name),
            queries=_over_queries(experiment, design, question),
            seeds=_over_seeds(placebo[question.name], variant[question.name]),
            primary=index == 0,
            untested=untested.get(question.name) or _no_word(design, question.name in effects),
        )
        for index, question in enumerate(design.questions)
        if question.name in placebo
    ]
    return found, missing


def _no_word(design: Replicates, tested: bool) -> str:
    """Why there is no verdict; empty where there is one."""
    if design.lineages < LINEAGES:
        return f"{design.lineages} lineage{'s' if design.lineages > 1 else ''} of the {LINEAGES} that a verdict needs"
    return "" if tested else "the primary question cannot be tested, so nothing is"


def _two(arm: str) -> tuple[str, str]:
    return PLACEBO.format(arm), arm


def _effects(
    design: Replicates,
    placebo: Mapping[str, list[list[float]]],
    variant: Mapping[str, list[list[float]]],
    untested: Mapping[str, str],
    *,
    paired: bool,
) -> dict[str, ReplicatedEffect]:
    """The tests by question; none where the primary one cannot be tested, which decides what is corrected."""
    asked = {question.name: question.measure for question in design.questions}
    tested = [name for name in asked if name in placebo and name not in untested]
    primary = design.questions[0].name
    if primary not in tested or design.lineages < 2:
        return {}
    effects = replicated_effects(
        {name: placebo[name] for name in tested},
        {name: variant[name] for name in tested},
        primary=primary,
        margins={name: asked[name].margin for name in tested},
        scales={name: asked[name].scale for name in tested},
        paired=paired,
    )
    return {effect.metric: effect for effect in effects}


def _values(
    experiment: Experiment, design: Replicates, name: str, measure: Measure
) -> list[list[float]] | None:
    """A measure of one arm (or placebo) by lineage and contrastive seed; None where one is missing."""
    pairs = {pair.name: pair for pair in experiment.pairs}
    runs = {run.name: run for run in experiment.runs}
    lineages = []
    for lineage in range(1, design.lineages + 1):
        found: list[float | None] = []
        for seed in range(1, (1 if measure.of == "backbones" else design.seeds) + 1):
            if measure.of == "scores":
                found.append(_score(runs.get(design.run(name, lineage, seed)), measure))
                continue
            pair = pairs.get(design.pair(measure.of, name, lineage, seed))
            if pair is None:
                return None
            if measure.layer == "last":
                found.append(pair.last.get(measure.metric))
            else:
                layers = pair.diagonal.get(measure.metric, [])
                found.append(layers[measure.layer] if measure.layer < len(layers) else None)
        known = [value for value in found if value is not None]
        if len(known) < len(found):
            return None
        lineages.append(known)
    return lineages


def _score(run: Run | None, measure: Measure) -> float | None:
    if run is None or run.last is None:
        return None
    return run.last.tasks.get(str(measure.task), {}).get(measure.metric)


def _over_queries(experiment: Experiment, design: Replicates, question: Question) -> tuple[float, int] | None:
    """Standard error over queries of arm less placebo, scores of a query averaged over lineages and seeds.

    None for what is no score, or a score other than the one that is kept of single queries.
    """
    measure, runs = question.measure, {run.name: run for run in experiment.runs}
    if measure.of != "scores" or measure.metric not in (SCORE_KEY, "main_score"):
        return None
    sums: list[dict[str, float]] = []
    for name in _two(question.arm):
        total: dict[str, float] = {}
        for lineage, seed in design.cells:
            run = runs.get(design.run(name, lineage, seed))
            found = (
                None if run is None or run.last is None else read_query_scores(run.last, str(measure.task))
            )
            if found is None:
                return None
            for query, value in found.items():
                total[query] = total.get(query, 0.0) + value / len(design.cells)
        sums.append(total)
    if sums[0].keys() != sums[1].keys() or len(sums[0]) < 2:
        return None
    differences = np.array([sums[1][query] - sums[0][query] for query in sums[0]])
    return float(differences.std(ddof=1) / math.sqrt(len(differences))), len(differences)


def _over_seeds(placebo: Sequence[Sequence[float]], variant: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation of the difference over contrastive seeds, pooled over lineages."""
    if len(placebo[0]) < 2:
        return None
    variances = [np.var(np.subtract(v, p), ddof=1) for p, v in zip(placebo, variant, strict=True)]
    return float(np.sqrt(np.mean(variances)))


def replicate_table(experiment: Experiment) -> Grid:
    """Every question a row: arm, lineages, estimate with its interval, p, Holm, word."""
    rows = []
    found, _ = answers(experiment)
    for answer in found:
        measure, effect = answer.question.measure, answer.effect
        means = effect.means if effect else (float(np.mean(answer.placebo)), float(np.mean(answer.variant)))
        name = Cell(replicate_label(answer.question.arm), "primary" if answer.primary else "")
        what = Cell(_title(measure), _of(measure))
        cells = [name, what, Cell(str(len(answer.variant))), Cell(number(means[0])), Cell(number(means[1]))]
        if effect is None:
            difference = float(np.mean(answer.differences))
            rows.append((*cells, Cell(signed(difference)), *[Cell("–")] * 3, Cell("–", answer.untested)))
            continue
        test = effect.test
        cells.append(
            Cell(
                signed(test.estimate),
                f"{brackets(test.confidence, write=signed)} {_SCALES[effect.scale]}".rstrip(),
            )
        )
        corrected = "not corrected" if answer.primary else _p(effect.p_difference)
        word = effect.word or ""
        cells += [Cell(number(measure.margin)), Cell(_p(test.p_difference)), Cell(corrected)]
        rows.append((*cells, Cell(word or "–", "" if word else answer.untested)))
    lineages = experiment.replicates.lineages if experiment.replicates else 0
    kind = "paired t" if experiment.own_bases else "Welch's t (all arms grew from one given base)"
    return Grid(
        key="replicates",
        title="Arms against their placebo, over lineages",
        caption=f"Each of {lineages} lineages was grown again from other seeds. Difference: arm less placebo, {kind} over "
        "lineages, contrastive seeds averaged within, with the 95 % interval. The primary question and all margins "
        "were named before the run; the p-values of the others are corrected by Holm. “Equivalent within margin”: "
        f"two one-sided tests at 5 %; “different”: p below 5 %; “undecided”: neither. No word below {LINEAGES} lineages.",
        columns=named_columns(
            "arm",
            "measure",
            "lineages",
            "placebo",
            "arm’s value",
            "difference",
            "margin",
            "p",
            "p (Holm)",
            "verdict",
        ),
        rows=tuple(rows),
    )


def chance_table(experiment: Experiment) -> Grid:
    """Of every question what lineages, contrastive seeds and queries each add to its chance."""
    found, _ = answers(experiment)
    rows = [
        (
            Cell(replicate_label(answer.question.arm)),
            Cell(_title(answer.question.measure), _of(answer.question.measure)),
            Cell(signed(float(answer.differences.mean()))),
            Cell(number(answer.spread), f"{len(answer.differences)} lineages"),
            Cell(number(answer.seeds), "" if answer.seeds is not None else "one seed each"),
            _queries(answer),
        )
        for answer in found
    ]
    return Grid(
        key="replicate-chance",
        title="Three sources of chance",
        caption="Arm less placebo as the metric is read. Lineages and seeds: the standard deviation of that difference over "
        "lineages (seeds averaged), and over the contrastive seeds of one lineage. Queries: the standard error of the "
        "difference over the task's queries, these models given.",
        columns=named_columns(
            "arm", "measure", "difference", "lineages (sd)", "seeds (sd)", "queries (s.e.)"
        ),
        rows=tuple(rows),
    )


def _queries(answer: Answer) -> Cell:
    error, count = answer.queries or (None, 0)
    return Cell(number(error), f"{count} queries" if count else "")


def weight_table(experiment: Experiment) -> Grid:
    """How far every arm and its placebo moved the weights of their parent."""
    design, grown = experiment.replicates, {one.name: one for one in experiment.backbones}
    rows = []
    for arm in design.arms if design else ():
        for name in reversed(_two(arm)):
            stage = experiment.stage_of_run.get(name, name)
            stages = [
                grown[key]
                for lineage in range(1, design.lineages + 1 if design else 1)
                if (key := grown_stage(stage, lineage)) in grown
            ]
            moved = [one.weight_change for one in stages if one.weight_change is not None]
            if not moved:
                continue
            rows.append(
                (
                    Cell(replicate_label(name)),
                    Cell(str(len(moved))),
                    Cell(number(float(np.mean(moved))), f"{number(min(moved))} to {number(max(moved))}"),
                    Cell(_updates(stages)),
                )
            )
    return Grid(
        key="weights",
        title="How far the weights moved",
        caption="Euclidean norm of the change of all weights from the parent's, mean and range over lineages. Live updates: "
        "steps of RLVR in which some prompt's samples were rewarded differently.",
        columns=named_columns("arm", "lineages", "norm of the change", "live updates"),
        rows=tuple(rows),
    )


def _updates(stages: Sequence[GrownBackbone]) -> str:
    counts = [str(one.live_updates) for one in stages if one.live_updates is not None]
    return ", ".join(counts) or "–"


def replicate_sentences(experiment: Experiment) -> list[str]:
    """Say in plain words what the lineages show, the primary question first."""
    found, missing = answers(experiment)
    return [answer_sentence(answer) for answer in found] + [f"Not answered: {text}." for text in missing]


def answer_title(answer: Answer) -> str:
    """What was measured: metric, of what, at which layer or task."""
    return f"{_title(answer.question.measure)} {_of(answer.question.measure)}"


def answer_sentence(answer: Answer) -> str:
    """Say in plain words what the lineages show on one question."""
    arm, measure, effect = replicate_label(answer.question.arm), answer.question.measure, answer.effect
    subject = {
        "embedders": "the embedder's representation",
        "backbones": "the language model's representation",
        "scores": "retrieval",
    }[measure.of]
    what = answer_title(answer)
    lineages = f"{len(answer.variant)} lineage{'s' if len(answer.variant) > 1 else ''}"
    if effect is None or effect.word is None:
        difference = float(np.mean(answer.differences))
        return (
            f"These checkpoints of {arm} and its placebo differ by {signed(difference)} in {what}, on these texts "
            f"({answer.untested}; this says nothing about {arm} as such)."
        )
    test, (low, high) = effect.test, effect.means
    scale = _SCALES[effect.scale]
    numbers = (
        f"{what} is {number(high)} after {arm} and {number(low)} after its placebo; difference "
        f"{signed(test.estimate)} {brackets(test.confidence, write=signed)}{' ' if scale else ''}{scale}, "
        f"{test.method} over {lineages}, p = {_p(effect.p_difference)}{'' if answer.primary else ' after Holm'}"
    )
    if effect.word == "equivalent within margin":
        start = (
            f"{arm} changes {subject} no more than its placebo, within the margin of {number(measure.margin)}"
        )
    elif effect.word == "undecided":
        start = f"Whether {arm} changes {subject} more than its placebo stays open"
    elif measure.of == "scores":
        start = f"{arm} makes {subject} {'better' if test.estimate > 0 else 'worse'} than its placebo does"
    else:
        closer = metric_label(measure.metric).higher_is_closer
        if closer is None:
            start = f"{arm} and its placebo differ in {subject}"
        else:
            less = (test.estimate > 0) == closer
            start = f"{arm} moves {subject} {'less' if less else 'more'} than its placebo does"
    return f"{start}: {numbers}."


def _title(measure: Measure) -> str:
    if measure.of == "scores":
        return SCORE if measure.metric == SCORE_KEY else measure.metric
    return metric_label(measure.metric).title


def _of(measure: Measure) -> str:
    if measure.of == "scores":
        return f"on {measure.task}"
    layer = "last layer" if measure.layer == "last" else f"layer {measure.layer}"
    return f"with the base ({measure.of}, {layer})"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else number(value)
