"""Charts of HRSA as data: heat maps over layers, similarity by layer and by step, and every number to be explored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from reasoning_embedding.hrsa.trajectory import MeasuredTrajectory

from .charts import Line, LineChart, Panel
from .labels import HEADLINE, ROBUST, ROBUST_NOTE, metric_label, number, short_layer
from .names import pair_title
from .records import AnalysedPair, Experiment, band_place, shared_probe, spread_out

#: Steps of a track that a page lets a reader explore.
_EXPLORED = 120


@dataclass(frozen=True)
class HeatMap:
    """A metric over layers of A (rows) and layers of B (columns)."""

    pair: str
    title: str
    """What a reader calls the pair."""
    metric: str
    label: str
    limits: tuple[float, float]
    z: list[list[float | None]]
    rows: list[str]
    columns: list[str]
    row_title: str
    column_title: str
    note: str
    about: str
    """Definition and chance level."""


def realignment_chart(experiment: Experiment) -> LineChart | None:
    """Similarity to the reference by step, with the seed band where its probe set is the track's."""
    tracks = experiment.trajectories
    groups = (
        ("last layer", "series"),
        ("mean over layers", "series_mean"),
        (_spectrum_group(tracks), "spectrum"),
    )
    panels = [
        _track_panel(experiment, tracks, metric, group, attribute)
        for group, attribute in groups
        for metric in _ordered(metric for track in tracks for metric in getattr(track, attribute))
    ]
    if not panels:
        return None
    note = " ".join(f"{track.name}: run {track.run} against {track.against}." for track in tracks)
    note = f"{note} {probe_note(tracks)}"
    if experiment.band:
        note += f" At the last layer the seed band is {experiment.band.description}."
    title = "Realignment: similarity to the reference by step"
    first = tuple(f"series/{metric}" for metric in HEADLINE)
    return LineChart("realignment", title, "training step", panels, note=note, log=True, first=first)


def _spectrum_group(tracks: tuple[MeasuredTrajectory, ...]) -> str:
    features = {track.features for track in tracks} - {""}
    return f"spectrum of {features.pop()} features" if len(features) == 1 else "spectrum"


def _track_panel(
    experiment: Experiment, tracks: tuple[MeasuredTrajectory, ...], metric: str, group: str, attribute: str
) -> Panel:
    shown = [(index, track) for index, track in enumerate(tracks) if metric in getattr(track, attribute)]
    looks = experiment.looks
    lines: list[Line] = []
    for index, track in shown:
        colour, _ = looks.get(track.run, (len(looks) + index, 0))
        style = sum(line.colour == colour for line in lines)  # a backbone's second track is dashed, and so on
        values = getattr(track, attribute)[metric]
        lines.append(Line(track.name, [float(step) for step in track.steps], values, colour, style))
    label, band = metric_label(metric), experiment.band
    last, found = (
        attribute == "series",
        [track for _, track in shown],
    )  # band and chance are of the last layer
    return Panel(
        key=f"{attribute}/{metric}",
        label=f"{label.title}, {group}",
        lines=lines,
        group=group,
        limits=label.limits,
        band=seed_level(experiment, found, metric) if last else None,
        band_label=f"seed band ({band.name})" if band is not None else "",
        chance=shared_chance(found, metric) if last else None,
    )


def seed_level(
    experiment: Experiment, tracks: Sequence[MeasuredTrajectory], metric: str
) -> tuple[float, float] | None:
    """The seed band of a metric within its limits, if all tracks were measured on the band's probe set and rows."""
    band = experiment.band
    return band.shown(metric) if band and all(map(band.same_probe, tracks)) else None


def shared_chance(tracks: Sequence[MeasuredTrajectory], metric: str) -> float | None:
    """The chance level of a metric, if it is the same for all tracks."""
    found = {track.chance.get(metric) for track in tracks}
    return found.pop() if len(found) == 1 else None


def diagonal_chart(experiment: Experiment) -> LineChart | None:
    """Similarity layer by layer (of the first model), for the pairs that share the commonest depth."""
    by_layers: dict[tuple[str, ...], list[tuple[int, AnalysedPair]]] = {}
    for colour, pair in enumerate(experiment.pairs):
        if pair.diagonal:
            by_layers.setdefault(pair.layers_a, []).append((colour, pair))
    if not by_layers:
        return None
    layers, pairs = max(by_layers.items(), key=lambda item: len(item[1]))
    panels = []
    for metric in _ordered(metric for _, pair in pairs for metric in pair.diagonal):
        label = metric_label(metric)
        lines = [
            Line(
                pair_title(experiment, pair),
                [float(i) for i in range(len(layers))],
                pair.diagonal[metric],
                colour,
                colour,
            )
            for colour, pair in pairs
            if len(pair.diagonal.get(metric, ())) == len(layers)
        ]
        if lines:
            panels.append(Panel(metric, label.title, lines, limits=label.limits))
    if not panels:
        return None
    note = probe_note([pair for _, pair in pairs])
    first = tuple(panel.key for panel in panels if panel.key in ROBUST) or HEADLINE
    if "cka_unit" in first:
        note += f" {ROBUST_NOTE}"
    ticks = [short_layer(layer) for layer in layers]
    return LineChart("layers", "Similarity by layer", "layer", panels, note=note, ticks=ticks, first=first)


def probe_note(records: Sequence[AnalysedPair | MeasuredTrajectory]) -> str:
    """Which probe set the numbers come from: once if it is one, else record by record."""
    if probe := shared_probe(records):
        return f"Probe set: {probe}."
    return " ".join(f"{record.name}: probe set {record.probe}." for record in records)


def heat_maps(experiment: Experiment) -> list[HeatMap]:
    """Layer by layer maps of every pair; empty ones are left out."""
    maps = []
    for pair in experiment.pairs:
        for metric in _ordered(pair.heatmaps):
            z = pair.heatmaps[metric]
            if not any(value is not None for row in z for value in row):
                continue
            rows = [short_layer(label) for label in pair.layers_a] or [str(i) for i in range(len(z))]
            columns = [short_layer(label) for label in pair.layers_b] or [str(i) for i in range(len(z[0]))]
            label = metric_label(metric)
            maps.append(
                HeatMap(
                    pair=pair.name,
                    title=pair_title(experiment, pair),
                    metric=metric,
                    label=label.title,
                    limits=label.limits or _span(z),
                    z=z,
                    rows=rows,
                    columns=columns,
                    row_title=f"layer of {pair.a.reference}",
                    column_title=f"layer of {pair.b.reference}",
                    note=f"Probe set: {pair.probe}.",
                    about=_about(pair, metric),
                )
            )
    return maps


def _about(pair: AnalysedPair, metric: str) -> str:
    definition, chance = pair.definitions.get(metric, ""), pair.chance.get(metric)
    parts = [
        f"Definition: {definition.rstrip('.')}." if definition else "",
        "" if chance is None else f"Mean over shuffled rows at the final norm: {number(chance)}.",
    ]
    return " ".join(part for part in parts if part)


def _span(z: list[list[float | None]]) -> tuple[float, float]:
    known = [value for row in z for value in row if value is not None]
    return min(known), max(known)


def _ordered(metrics: Iterable[str]) -> list[str]:
    """Each metric once, those that few rows do not decide first, then the other headline ones."""
    found, led = list(dict.fromkeys(metrics)), list(dict.fromkeys((*ROBUST, *HEADLINE)))
    return [metric for metric in led if metric in found] + [metric for metric in found if metric not in led]


def explorer(experiment: Experiment) -> dict[str, Any] | None:
    """Data of the explorer; None where nothing was analysed.

    Returns
    -------
    dict
        ``metrics`` (name -> title and definition) and ``sources``: pairs and tracks, each with layers, steps
        and, for every metric, values by step and layer, the intervals of the last layer by step, chance level, seed
        band and the test against it.
    """
    sources = [_pair(experiment, pair) for pair in experiment.pairs if pair.diagonal]
    sources += [_track(experiment, track) for track in experiment.trajectories if track.series_layers]
    if not sources:
        return None
    definitions: dict[str, str] = {}
    for record in (*experiment.pairs, *experiment.trajectories):
        definitions |= record.definitions
    names = dict.fromkeys(name for source in sources for name in source["metrics"])
    return {
        "metrics": {
            name: {"title": metric_label(name).title, "definition": definitions.get(name, "")}
            for name in names
        },
        "sources": sources,
    }


def _pair(experiment: Experiment, pair: AnalysedPair) -> dict[str, Any]:
    metrics = {}
    for name, values in pair.diagonal.items():
        found = band_place(pair, experiment.band, name)
        band = experiment.band.shown(name) if found and experiment.band else None
        metrics[name] = {
            "values": [values],
            "ends": [pair.intervals.get(name)],
            "chance": pair.chance.get(name),
            "band": band,
            "place": found,
        }
    return {
        "name": pair_title(experiment, pair),
        "group": "Pairs",
        "about": f"{pair.a.reference} against {pair.b.reference}. Probe set: {pair.probe}.",
        "layers": [short_layer(label) for label in pair.layers_a],
        "steps": None,
        "metrics": metrics,
    }


def _track(experiment: Experiment, track: MeasuredTrajectory) -> dict[str, Any]:
    kept = spread_out(len(track.steps), _EXPLORED)
    metrics = {}
    for name, rows in track.series_layers.items():
        if len(rows) != len(track.steps):
            continue
        ends = track.intervals.get(name) or [None] * len(rows)
        metrics[name] = {
            "values": [rows[place] for place in kept],
            "ends": [ends[place] for place in kept],
            "chance": track.chance.get(name),
            "band": seed_level(experiment, [track], name),
            "place": None,
        }
    part = "" if len(kept) == len(track.steps) else f" {len(kept)} of {len(track.steps)} steps are shown."
    return {
        "name": track.name,
        "group": "Tracks by step",
        "about": f"Checkpoints of {track.run} against {track.against}. Probe set: {track.probe}.{part}",
        "layers": [short_layer(label) for label in track.layers],
        "steps": [track.steps[place] for place in kept],
        "metrics": metrics,
    }
