"""What a page says first: three sentences, computed whichever way the numbers come out, and the figure behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .charts import Effect, EffectChart, EffectPanel
from .comparison import BackboneComparison, Entry, ScoreTable
from .hrsa_tables import reference_levels
from .labels import (
    CKA,
    SCORE,
    brackets,
    metric_label,
    number,
    replicate_label,
    signed,
    training_kind,
)
from .names import model_title, pair_title, run_title
from .records import AnalysedPair, Experiment, Run
from .replicates import Answer, answer_sentence, answer_title, answers
from .tables import mean_score

#: Metrics of the figure at the top where no question was named: of each the first form that was measured.
_SHOWN = (CKA, ("cka_unit",), ("knn_jaccard@10",))
#: Pairs, runs or arms a sentence names; more are counted.
_NAMED = 4


@dataclass(frozen=True)
class Headline:
    """The answer first.

    Parameters
    ----------
    retrieval : str
        Did retrieval change?
    representation : str
        Did the representation move, and more than under a placebo?
    unknown : str
        What cannot be said.
    chart : EffectChart or None
        Effects with intervals by metric; None where nothing was compared.
    """

    retrieval: str
    representation: str
    unknown: str
    chart: EffectChart | None

    @property
    def sentences(self) -> tuple[tuple[str, str], ...]:
        """Question and answer."""
        return (
            ("Did retrieval change?", self.retrieval),
            ("Did the representation move?", self.representation),
            ("What cannot be said?", self.unknown),
        )


def headline(experiment: Experiment, compared: ScoreTable | None) -> Headline:
    """Say what an experiment, or one run, shows and what it does not.

    Parameters
    ----------
    experiment : Experiment
        What was found.
    compared : ScoreTable, optional
        Its backbones' scores against each other, where there are two.
    """
    found, _ = answers(experiment)
    return Headline(
        retrieval=_retrieval(experiment, compared, found),
        representation=_representation(experiment, found),
        unknown=_unknown(experiment, compared, found),
        chart=_of_answers(found) if found else _of_pairs(experiment, compared),
    )


# --- sentences


def _retrieval(experiment: Experiment, compared: ScoreTable | None, found: Sequence[Answer]) -> str:
    if asked := [answer for answer in found if answer.question.measure.of == "scores"]:
        return " ".join(answer_sentence(answer) for answer in asked[:_NAMED])
    trained = _trained(experiment)
    if not trained:
        return "Not known: no model was scored both before and after training."
    tasks = experiment.tasks
    mean = f"mean {SCORE} over {len(tasks)} tasks" if len(tasks) > 1 else f"{SCORE} on {tasks[0]}"
    before, after = ([pair[index] for _, pair in trained] for index in (0, 1))
    changes = [b - a for a, b in zip(before, after, strict=True)]
    word = "rose" if min(changes) > 0 else "fell" if max(changes) < 0 else "changed"
    who = run_title(experiment, trained[0][0].name) if len(trained) == 1 else f"all {len(trained)} runs"
    who = who if word != "changed" or len(trained) == 1 else f"{len(trained)} runs"
    text = f"Training: {mean} {word} from {_range(before)} to {_range(after)} in {who}."
    entries = [(pair, entry) for pair in (compared.pairs if compared else ()) if (entry := _main_entry(pair))]
    if entries:
        parts = [
            f"{training_kind(pair.variant)} and {training_kind(pair.base)}{_within(pair)} by {_difference(entry)}"
            for pair, entry in entries[:_NAMED]
        ]
        text += f" After it these checkpoints differ on these tasks, in points of 100: {'; '.join(parts)}."
    return text


def _trained(experiment: Experiment) -> list[tuple[Run, tuple[float, float]]]:
    """Runs with their mean scores at step 0 and at the last step, of those that have both."""
    found = []
    for run in experiment.runs:
        ends = [mean_score(scores, experiment.tasks) for scores in (run.first, run.last)]
        if experiment.tasks and ends[0] is not None and ends[1] is not None:
            found.append((run, (ends[0], ends[1])))
    return found


def _range(values: Sequence[float]) -> str:
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}" if len(values) == 2 else f"{low}–{high}"


def _main_entry(pair: BackboneComparison) -> Entry | None:
    """The entry of a pair that stands for all: the mean, or its only task."""
    known = [entry for entry in pair.entries if entry.delta is not None]
    means = [entry for entry in known if entry.quantity == "mean by task"]
    return (means or known or [None])[0]


def _within(pair: BackboneComparison) -> str:
    return f", {pair.within}" if pair.within else ""


def _difference(entry: Entry) -> str:
    text = signed(entry.delta[0] if entry.delta else None, 2)
    for test, over in ((entry.queries, "queries"), (entry.seeds, "seeds")):
        if test is not None:
            return f"{text} {brackets(test.confidence, 2, write=signed)} over {over}"
    return text


def _representation(experiment: Experiment, found: Sequence[Answer]) -> str:
    if asked := [answer for answer in found if answer.question.measure.of != "scores"]:
        return " ".join(answer_sentence(answer) for answer in asked[:_NAMED])
    pairs = _told(experiment)
    if not pairs:
        return _tracks(experiment)
    metric = _form(pairs, CKA)
    if metric is None:
        return "Not known: no similarity was measured at the last layer."
    parts = [
        f"{pair_title(experiment, pair)} {number(pair.last.get(metric))} {brackets(pair.intervals.get(metric))}".rstrip()
        for pair in pairs[:_NAMED]
    ]
    more = f"; {len(pairs) - _NAMED} more below" if len(pairs) > _NAMED else ""
    text = f"These checkpoints, on these texts: {metric_label(metric).title} {'; '.join(parts)}{more}."
    band = experiment.band
    if band is not None and (value := band.value(metric)) is not None:
        text += f" Two seeds of one backbone: {number(value)}."
    return f"{text} No placebo was grown, so how much of that any training would do is not known."


def _told(experiment: Experiment) -> list[AnalysedPair]:
    """The pairs a reader asks about: of embedders where there are any, without those of the seed band."""
    seeds = experiment.band.pairs if experiment.band else ()
    pairs = [pair for pair in experiment.pairs if pair not in seeds]
    trained = [pair for pair in pairs if pair.b.reference.startswith("run:")]
    return trained or pairs


def _tracks(experiment: Experiment) -> str:
    parts = []
    for track in experiment.trajectories:
        for metric in CKA:
            points = [
                (step, value)
                for step, value in zip(track.steps, track.series.get(metric, ()), strict=False)
                if value is not None
            ]
            if len(points) > 1:
                (first, start), (last, end) = points[0], points[-1]
                parts.append(
                    f"{model_title(experiment, f'run:{track.run}@last')} against {track.against}: "
                    f"{metric_label(metric).title} {number(start)} at step {first}, {number(end)} at step {last}"
                )
                break
    if not parts:
        return "Not known: no two models were compared."
    return f"On these texts, {'; '.join(parts[:_NAMED])}."


def _form(pairs: Sequence[AnalysedPair], forms: Sequence[str]) -> str | None:
    """The form of a metric that most pairs have, those with an interval first."""
    for known in (lambda pair: pair.intervals, lambda pair: pair.last):
        for form in forms:
            if any(known(pair).get(form) is not None for pair in pairs):
                return form
    return None


def _unknown(experiment: Experiment, compared: ScoreTable | None, found: Sequence[Answer]) -> str:
    parts = []
    if found:
        parts += _of_design(experiment, found)
    else:
        kinds = sorted(
            {training_kind(one.kind) for one in experiment.backbones if one.kind in ("sft", "rlvr", "dpo")}
        )
        if kinds:
            parts.append(
                f"nothing here is about {' or '.join(kinds)} as a kind of training: each was grown once, without a "
                "placebo, and growing it again may change every number"
            )
        elif len({run.backbone or run.name for run in experiment.runs}) > 1:
            parts.append(
                "what else differs between the backbones than what their names say is not held fixed"
            )
        if len(experiment.runs) and not _two_seeds(experiment):
            parts.append("no backbone was trained with two seeds, so the noise of a seed is not known")
    tested = [entry for pair in (compared.pairs if compared else ()) for entry in pair.entries if entry.delta]
    if tested and not any(entry.queries for entry in tested):
        parts.append(
            "scores of single queries are not there, so differences in score have no interval over queries"
        )
    if few_rows(experiment):
        parts.append(
            "in some layers few rows carry the variance (attention sinks, named below): there only CKA of unit rows and "
            "k-NN overlap speak of all tokens"
        )
    if not parts:
        parts.append("whether it holds on other texts, tasks and models was not measured")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _of_design(experiment: Experiment, found: Sequence[Answer]) -> list[str]:
    lineages = len(found[0].variant)
    open_ = [answer for answer in found if answer.effect is None or answer.effect.word in (None, "undecided")]
    parts = []
    if open_:
        names = [f"{replicate_label(one.question.arm)}, {answer_title(one)}" for one in open_]
        shown = "; ".join(names[:_NAMED]) + (
            f"; and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        )
        parts.append(
            f"open after {lineages} lineage{'s' if lineages > 1 else ''}, which is not the same as equal: {shown}"
        )
    parts.append("whether it holds for models, data and texts of another kind was not measured")
    return parts


def _two_seeds(experiment: Experiment) -> bool:
    seeds = [(run.backbone, run.seed) for run in experiment.runs if run.backbone is not None]
    return any(a[0] == b[0] and a[1] != b[1] for i, a in enumerate(seeds) for b in seeds[:i])


def few_rows(experiment: Experiment) -> list[str]:
    """Pairs and layers in which fewer than a tenth of the rows carry the variance, a sentence a pair."""
    found = []
    for pair in experiment.pairs:
        named = [
            f"{layer} ({carried:,.0f} of {pair.rows:,})"
            for layer, carried in zip(pair.layers_a, pair.effective_rows, strict=False)
            if pair.rows and carried < pair.rows / 10
        ]
        if named:
            found.append(f"{pair_title(experiment, pair)}: {', '.join(named)}")
    return found


# --- the figure


def _tested(answer: Answer) -> bool:
    """Whether there are lineages enough for a word, so that an interval over them says something."""
    return answer.effect is not None and answer.effect.word is not None


def _of_answers(found: Sequence[Answer]) -> EffectChart:
    """A panel a measure, a row an arm: arm less placebo over lineages, beside no difference and the margin."""
    panels: dict[str, list[Answer]] = {}
    for answer in found:
        panels.setdefault(answer.question.measure.quantity, []).append(answer)
    made, arms = [], list(dict.fromkeys(answer.question.arm for answer in found))
    for group in panels.values():
        measure, tested = group[0].question.measure, all(_tested(answer) for answer in group)
        scale = {"fisher": ", Fisher’s z", "logit": ", log-odds"}.get(measure.scale, "") if tested else ""
        rows = [
            Effect(
                replicate_label(answer.question.arm),
                answer.effect.test.estimate if answer.effect and tested else float(answer.differences.mean()),
                answer.effect.test.confidence if answer.effect and tested else None,
                arms.index(answer.question.arm),
            )
            for answer in group
        ]
        made.append(
            EffectPanel(
                label=f"{answer_title(group[0])}: less placebo{scale}",
                rows=rows,
                zero="no difference",
                band=(-measure.margin, measure.margin) if tested else None,
                band_label="margin named before the run",
            )
        )
    lineages = len(found[0].variant)
    interval = (
        "; the 95 % interval is of Student’s t over them"
        if any(map(_tested, found))
        else ", too few for a test"
    )
    return EffectChart(
        title="Each arm less its placebo",
        panels=made,
        note=f"Mean over {lineages} lineage{'s' if lineages > 1 else ''}{interval}.",
    )


def _of_pairs(experiment: Experiment, compared: ScoreTable | None) -> EffectChart | None:
    """Differences in score between backbones, and similarity of the compared models with what it is held against."""
    panels = [_score_panel(experiment, compared)] if compared else []
    band, pairs = (
        experiment.band,
        sorted(_told(experiment), key=lambda pair: _look(experiment, pair.b.reference)),
    )
    for forms in _SHOWN:
        metric = _form(pairs, forms)
        if metric is None:
            continue
        comparable = band is not None and any(map(band.comparable, pairs))
        panels.append(
            EffectPanel(
                label=f"{metric_label(metric).title}, last layer",
                rows=[
                    Effect(
                        pair_title(experiment, pair),
                        value,
                        pair.intervals.get(metric),
                        _look(experiment, pair.b.reference),
                        reference_levels(pair, metric),
                    )
                    for pair in pairs
                    if (value := pair.last.get(metric)) is not None
                ],
                band=band.shown(metric) if band and comparable else None,
                band_label="seed band",
                signed=False,
            )
        )
    panels = [panel for panel in panels if panel and panel.rows]
    if not panels:
        return None
    return EffectChart(
        title="How far the models differ",
        panels=panels,
        note="Points with 95 % intervals over queries (scores) or over the probe’s texts (similarity): other texts, not "
        "another training run. Short lines: the levels a similarity is held against.",
    )


def _look(experiment: Experiment, reference: str) -> int:
    """The colour that a run (``run:NAME@step``) or a backbone has in all charts of the page."""
    name = reference.partition(":")[2].partition("@")[0] if reference.startswith("run:") else reference
    name = name.removeprefix("lineage:")
    of_backbone = {run.backbone: experiment.looks[run.name] for run in experiment.runs}
    return (experiment.looks.get(name) or of_backbone.get(name) or (0, 0))[0]


def _score_panel(experiment: Experiment, compared: ScoreTable) -> EffectPanel | None:
    rows, names = [], set()
    for pair in compared.pairs:
        entry = _main_entry(pair)
        if entry is None or entry.delta is None:
            continue
        test = entry.queries or entry.seeds
        names.add(entry.quantity)
        rows.append(
            Effect(
                f"{training_kind(pair.variant)} v {training_kind(pair.base)}{_within(pair)}",
                entry.delta[0],
                test.confidence if test else None,
                _look(experiment, pair.variant),
            )
        )
    if not rows:
        return None
    quantity = names.pop() if len(names) == 1 else "score"
    return EffectPanel(
        label=f"Difference in score, {quantity} (points of 100)",
        rows=rows,
        zero="no difference",
        band=(-compared.margin, compared.margin),
        band_label=f"margin of {compared.margin:g} points",
    )
