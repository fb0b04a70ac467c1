"""What RLVR, SFT and contrastive training do at each level: sentences computed from the numbers, nothing else."""

from __future__ import annotations

from reasoning_embedding.hrsa.trajectory import MeasuredTrajectory
from reasoning_embedding.reports.labels import LEVELS, brackets, metric_label, number, signed
from reasoning_embedding.reports.narrative import last_values
from reasoning_embedding.reports.records import AnalysedPair, Experiment

from .backbones import (
    Accuracy,
    BackbonePair,
    Bounds,
    Change,
    accuracies,
    backbone_pairs,
    change,
    pair_change,
    training_pairs,
)

#: Heading -> sentences.
Section = tuple[str, list[str]]
_LEVEL_TITLES = {"representation": "Representation", "geometry": "Geometry", "function": "Function"}


def appendix(experiment: Experiment) -> list[Section]:
    """Every section the experiment has numbers for.

    Parameters
    ----------
    experiment : Experiment
        Its pairs, tracks and seed band.
    """
    pairs = backbone_pairs(experiment)
    sections = [("What was measured", _measured(experiment))]
    sections += [(f"{pair.name}: the two backbones", _backbones(experiment, pair)) for pair in pairs]
    sections.append(("Contrastive training: each backbone against its own embedder", _training(experiment)))
    sections.append(("Do models become more alike?", _realignment(experiment, pairs)))
    sections.append(("Reading these numbers", _limits(experiment)))
    return [(title, sentences) for title, sentences in sections if sentences]


def _measured(experiment: Experiment) -> list[str]:
    probes = dict.fromkeys(str(record.probe) for record in (*experiment.pairs, *experiment.trajectories))
    sentences = [f"Probe set: {probe}." for probe in probes]
    band = experiment.band
    if band is not None:
        found = (
            f"{metric_label(metric).title} {number(band.value(metric))} {brackets(ends)}"
            for metrics in LEVELS.values()
            for metric in metrics
            if (ends := band.shown(metric)) is not None
        )
        sentences.append(f"The seed band is {band.description}. {'; '.join(found)}.")
    return sentences


def _backbones(experiment: Experiment, pair: BackbonePair) -> list[str]:
    sentences = []
    for level in _LEVEL_TITLES:
        for words, side in pair.analysed:
            if text := _level(experiment, side, level):
                state = "as language models, before contrastive training"
                state = state if words == "before CL" else "as embedders, after contrastive training"
                sentences.append(f"{_LEVEL_TITLES[level]}, {state}: {text}.")
        if level in LEVELS:
            moved = [
                f"{metric_label(metric).title} {_moved(found)}"
                for metric in LEVELS[level]
                if (found := pair_change(pair.before, pair.after, metric)) is not None
            ]
            if moved:
                sentences.append(f"{_LEVEL_TITLES[level]}, after less before: {'; '.join(moved)}.")
    return sentences


def _training(experiment: Experiment) -> list[str]:
    sentences = []
    for pair in training_pairs(experiment):
        for level, title in _LEVEL_TITLES.items():
            if text := _level(experiment, pair, level):
                sentences.append(f"{title}, {pair.a.reference} against {pair.b.reference}: {text}.")
        if pair.a.attention != pair.b.attention:
            sentences.append(
                f"{pair.a.reference} attends {_attends(pair.a.attention)} and {pair.b.reference} "
                f"{_attends(pair.b.attention)}: part of what differs is the attention's."
            )
    own = [track for track in experiment.trajectories if track.against.startswith(f"run:{track.run}@")]
    return sentences + [text for track in own if (text := _track(track))]


def _attends(attention: str) -> str:
    return "in both directions" if attention == "bidirectional" else "causally"


def _track(track: MeasuredTrajectory) -> str:
    """What happened to the similarity between first and last step, and whether it passed through a low."""
    parts = []
    for metrics in LEVELS.values():
        for metric in metrics:
            values = track.series.get(metric, [])
            if len(values) < 2 or values[0] is None or values[-1] is None:
                continue
            ends = track.intervals.get(metric) or [None] * len(values)
            found = change(values[0], ends[0], values[-1], ends[-1])
            if found is None or found.bounds is None:
                continue
            text = (
                f"{metric_label(metric).title} from {number(values[0])} to {number(values[-1])} "
                f"{brackets(ends[-1])}".rstrip()
            )
            text += f", {_moved(found)}"
            if low := _low(track, metric, values, ends):
                text += low
            parts.append(text)
    if not parts:
        return ""
    first, last = track.steps[0], track.steps[-1]
    return f"{track.run} against {track.against}, steps {first} to {last}: {'; '.join(parts)}."


def _low(
    track: MeasuredTrajectory, metric: str, values: list[float | None], ends: list[Bounds | None]
) -> str:
    """Clause on a low (of a distance: a high) between the ends that lies beyond both ends' intervals."""
    up = metric_label(metric).higher_is_closer
    known = [(value, index) for index, value in enumerate(values) if value is not None]
    value, index = min(known) if up else max(known)
    around = [ends[index], ends[0], ends[-1]]
    if index in (0, len(values) - 1) or None in around:
        return ""
    here, *others = [pair for pair in around if pair is not None]
    beyond = all(here[1] < other[0] if up else here[0] > other[1] for other in others)
    return f" (least alike at step {track.steps[index]}: {number(value)} {brackets(here)})" if beyond else ""


def _realignment(experiment: Experiment, pairs: list[BackbonePair]) -> list[str]:
    sentences = []
    for pair in pairs:
        for metric in ("h_inv", "cka", "knn_jaccard@10"):
            found = pair_change(pair.before, pair.after, metric)
            if found is None or found.bounds is None or pair.before is None or pair.after is None:
                continue
            ends = f"from {number(pair.before.last[metric])} to {number(pair.after.last[metric])}"
            verdict = {
                "rose": "so contrastive training made the two more alike here",
                "fell": "so contrastive training made the two less alike here",
            }.get(found.word, "so neither is shown")
            sentences.append(
                f"{pair.name}, {metric_label(metric).title}: {ends}, {_moved(found)}, {verdict}."
            )
    others = [track for track in experiment.trajectories if not track.against.startswith(f"run:{track.run}@")]
    return sentences + [text for track in others if (text := _track(track))]


def _level(experiment: Experiment, pair: AnalysedPair, level: str) -> str:
    if level == "function":
        return _function(accuracies(pair.probe_transfer), pair)
    return last_values(pair, experiment.band, LEVELS[level])


def _function(found: list[Accuracy], pair: AnalysedPair) -> str:
    if not found or pair.probe_transfer is None:
        return ""
    texts = [f"{accuracy.label} {number(accuracy.value)} {brackets(accuracy.bounds)}" for accuracy in found]
    chance, control = (pair.probe_transfer.get(key) for key in ("chance", "permuted_control"))
    return (
        f"a linear probe {', '.join(texts)} on {pair.probe_transfer['n']} test texts (chance {number(chance)}, "
        f"shuffled labels {number(control)})"
    )


def _moved(found: Change) -> str:
    return f"{found.word}: {signed(found.value)} {brackets(found.bounds, write=signed)}".rstrip()


def _limits(experiment: Experiment) -> list[str]:
    sentences = [
        "Intervals are 95 % bootstrap intervals over the probe's texts (Wilson for accuracies): they cover another "
        "choice of texts, not another training run. Intervals of differences treat both values as independent.",
    ]
    if experiment.band is None:
        sentences.append(
            "No two seeds were compared: nothing here says whether a difference is larger than that of a seed."
        )
    else:
        sentences.append(
            "Where an interval lies to the seed band describes two checkpoints: it is no test of how they were trained."
        )
    if any(pair.a.attention != pair.b.attention for pair in experiment.pairs):
        sentences.append("A language model reads causally and its embedder in both directions.")
    return sentences + _warnings(experiment)


def _warnings(experiment: Experiment) -> list[str]:
    """Each warning of the analysis once, with the number of pairs it holds for."""
    pairs: dict[str, set[str]] = {}
    for pair in experiment.pairs:
        for warning in pair.warnings:
            place, _, text = warning.partition(": ")
            pairs.setdefault(text or place, set()).add(pair.name)
    return [
        f"Warning of the analysis: {text} ({len(names)} of {len(experiment.pairs)} pairs)."
        for text, names in pairs.items()
    ]
