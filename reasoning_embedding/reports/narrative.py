"""What the numbers say, in plain sentences computed from them, whichever way they come out."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from itertools import combinations

from reasoning_embedding.hrsa.trajectory import MeasuredTrajectory

from .labels import CKA, SCORE, brackets, metric_label, number, signed
from .names import pair_title, run_title
from .records import AnalysedPair, Band, Experiment, Run, Scores, band_place, shared_probe
from .replicates import replicate_sentences
from .tables import mean_score, task_score

#: The metrics the sentences speak of: geometry at large, and neighbourhoods.
_METRICS = (CKA, ("knn_jaccard@10",))
#: Changes smaller than this are called "hardly changed"; it is a matter of words, not a test.
_SMALL = 0.01


def findings(experiment: Experiment) -> list[tuple[str, list[str]]]:
    """Plain-language findings under headings: retrieval, representation, realignment.

    Where all HRSA numbers of a heading come from one probe set, the heading names it, else every sentence does.
    """
    pairs = experiment.band_first
    tracks = experiment.trajectories
    retrieval = [_training(run, experiment) for run in experiment.runs]
    retrieval += [_untrained_best(run, experiment) for run in experiment.runs] + _between_runs(experiment)
    representation = [(pair, _pair(pair, experiment)) for pair in pairs]
    title, sentences = _with_probes("Representation at the last layer", representation)
    groups = [
        ("Arms against their placebo", replicate_sentences(experiment)),
        ("Retrieval", retrieval),
        (title, sentences + _warnings((*pairs, *tracks))),
        _with_probes("Realignment", [(track, _track(track)) for track in tracks]),
    ]
    kept = [(title, [sentence for sentence in sentences if sentence]) for title, sentences in groups]
    return [(title, sentences) for title, sentences in kept if sentences]


def _with_probes(
    title: str, found: Sequence[tuple[AnalysedPair | MeasuredTrajectory, str]]
) -> tuple[str, list[str]]:
    """The probe set in the heading where all sentences share it, else in every sentence."""
    if probe := shared_probe([record for record, _ in found]):
        return f"{title} (probe set: {probe})", [sentence for _, sentence in found]
    return title, [f"{sentence} Probe set: {record.probe}." for record, sentence in found]


def _warnings(records: Sequence[AnalysedPair | MeasuredTrajectory]) -> list[str]:
    count = sum(len(record.warnings) for record in records)
    return (
        [f"The analysis gave {count} warning{'s' if count > 1 else ''}, listed under the HRSA tables."]
        if count
        else []
    )


def _training(run: Run, experiment: Experiment) -> str:
    first, last = run.first, run.last
    if first is None or last is None:
        return ""
    shared = tuple(task for task in experiment.tasks if task in first.tasks and task in last.tasks)
    if not shared:
        return ""
    before, after = mean_score(first, shared), mean_score(last, shared)
    where = f"mean {SCORE} over {len(shared)} tasks" if len(shared) > 1 else f"{SCORE} on {shared[0]}"
    name = run_title(experiment, run.name)
    parts = [f"{name}: {where} went from {number(before)} at step 0 to {number(after)} at step {last.step}"]
    if len(shared) > 1:
        changes = {
            task: (task_score(last, task) or 0.0) - (task_score(first, task) or 0.0) for task in shared
        }
        worse = [f"{task} ({signed(change)})" for task, change in changes.items() if change < 0]
        parts.append(f"it fell on {', '.join(worse)}" if worse else "no task fell")
    parts += [_against_baseline(last, scores, name, shared) for name, scores in experiment.baselines.items()]
    return "; ".join(part for part in parts if part) + "."


def _untrained_best(run: Run, experiment: Experiment) -> str:
    if run.best_step != 0 or run.last is None:
        return ""
    return (
        f"Warning: the best step of {run_title(experiment, run.name)} is 0, the model before training; no later step "
        "scored higher on the run's own evaluation."
    )


def _against_baseline(last: Scores, baseline: Scores, name: str, shared: tuple[str, ...]) -> str:
    name = {"bm25": "BM25", "untrained": "the untrained model"}.get(name, name)
    both = [task for task in shared if task in baseline.tasks]
    beaten = [task for task in both if (task_score(last, task) or 0.0) > (task_score(baseline, task) or 0.0)]
    if len(both) == 1:
        side = "above" if beaten else "at or below"
        return f"it ends {side} {name} ({number(task_score(baseline, both[0]))})"
    return f"it ends above {name} on {len(beaten)} of {len(both)}" if both else ""


def _between_runs(experiment: Experiment) -> list[str]:
    tasks = experiment.tasks
    scored = [(run, score) for run in experiment.runs if (score := mean_score(run.last, tasks)) is not None]
    if len(scored) < 2:
        return []
    noise = [
        (abs(score - other), run, twin)
        for (run, score), (twin, other) in combinations(scored, 2)
        if run.backbone is not None
        and (run.backbone, run.readout) == (twin.backbone, twin.readout)
        and run.seed != twin.seed
    ]
    reference, base = scored[0]
    mean = "mean " if len(tasks) > 1 else ""
    found = []
    for run, score in scored[1:]:
        if not _one_axis(run, reference):
            continue
        names = [run_title(experiment, one.name) for one in (run, reference)]
        text = f"After training, {names[0]} minus {names[1]} is {signed(score - base)} in {mean}{SCORE}"
        if noise:
            size, one, two = max(noise, key=lambda item: item[0])
            relation = "no more than" if abs(score - base) <= size else "more than"
            text += (
                f", {relation} the {number(size)} between two seeds of one backbone ({one.name}, {two.name})"
            )
        found.append(text + ".")
    if found and not noise:
        found.append(
            "No backbone was trained with two seeds, so these differences have no noise to be held against."
        )
    return found


def _one_axis(run: Run, reference: Run) -> bool:
    """Whether two runs differ in backbone or readout, not in both; with readouts, of one seed."""
    if reference.readout is None:
        return run.backbone is None or run.backbone != reference.backbone
    changed = (run.backbone != reference.backbone) + (run.readout != reference.readout)
    return changed == 1 and run.seed == reference.seed


def _forms(values: Container[str], with_interval: Container[str]) -> list[str]:
    """Of each of the metrics the form that a record has with an interval, or has at all, the preferred one first."""
    return [
        next((form for known in (with_interval, values) for form in forms if form in known), forms[-1])
        for forms in _METRICS
    ]


def _pair(pair: AnalysedPair, experiment: Experiment) -> str:
    band = experiment.band
    found = (
        last_values(pair, band, _forms(pair.last, pair.intervals))
        or "neither CKA nor k-NN overlap was computed"
    )
    role = ""
    if band and pair in band.pairs:
        role = ", the seed band itself" if len(band.pairs) == 1 else ", of the seed band"
    elif band and not band.comparable(pair):
        role = ", not held against the seed band (another kind of model or another probe set)"
    return f"{pair_title(experiment, pair)}{role}: {found}."


def last_values(pair: AnalysedPair, band: Band | None, metrics: Iterable[str]) -> str:
    """Clauses on metrics at the last layer: value, interval, row shuffle and where it lies to the seed band."""
    parts = []
    for metric in metrics:
        value, chance = pair.last.get(metric), pair.chance.get(metric)
        if value is not None:
            text = f"{metric_label(metric).title} {number(value)} {brackets(pair.intervals.get(metric))}".rstrip()
            text += "" if chance is None else f" (row shuffle {number(chance)})"
            parts.append(text + _against_band(pair, band, metric))
    return "; ".join(parts)


def _against_band(pair: AnalysedPair, band: Band | None, metric: str) -> str:
    """Clause on where a pair lies to the seed band; empty where it cannot be placed."""
    place = band_place(pair, band, metric)
    if place is None or band is None:
        return ""
    seeds = "the pair of seeds" if len(band.pairs) == 1 else "the pairs of seeds"
    words = {
        "inside": f"inside the range of {seeds}",
        "closer": f"more alike than {seeds}",
        "farther": f"less alike than {seeds}",
        "across": f"across an end of the range of {seeds}",
    }
    return f", {words[place]} (band {brackets(band.shown(metric))})"


def _track(track: MeasuredTrajectory) -> str:
    parts = []
    with_interval = [metric for metric, ends in track.intervals.items() if any(ends)]
    for metric in _forms(track.series, with_interval):
        points = [
            (s, v) for s, v in zip(track.steps, track.series.get(metric, []), strict=False) if v is not None
        ]
        if len(points) < 2:
            continue
        (_, start), (_, end) = points[0], points[-1]
        step, lowest = min(points, key=lambda point: point[1])
        change = end - start
        verb = "hardly changed" if abs(change) < _SMALL else ("rose" if change > 0 else "fell")
        text = f"{metric_label(metric).title} {verb}, from {number(start)} to {number(end)}"
        if lowest < min(start, end) - _SMALL:
            text += f" with a low of {number(lowest)} at step {step}"
        parts.append(text)
    if not parts:
        parts.append("neither CKA nor k-NN overlap was computed at two steps")
    return (
        f"{track.name}: from step {track.steps[0]} to {track.steps[-1]} of {track.run}, against {track.against}, "
        f"{'; '.join(parts)}."
    )
