"""Every HRSA number of the page in one place: by pair or track, metric, layer and step."""

from __future__ import annotations

from typing import Any

from reasoning_embedding.hrsa.trajectory import Trajectory

from .hrsa_charts import seed_level
from .labels import metric_label, short_layer
from .records import Experiment, Pair
from .similarity import Verdict, verdict


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
    sources += [_track(experiment, track) for track in experiment.realignments if track.series_layers]
    if not sources:
        return None
    definitions: dict[str, str] = {}
    for record in (*experiment.pairs, *experiment.realignments):
        definitions |= record.definitions
    names = dict.fromkeys(name for source in sources for name in source["metrics"])
    return {
        "metrics": {
            name: {"title": metric_label(name).title, "definition": definitions.get(name, "")}
            for name in names
        },
        "sources": sources,
    }


def _pair(experiment: Experiment, pair: Pair) -> dict[str, Any]:
    metrics = {}
    for name, values in pair.diagonal.items():
        found = verdict(pair, experiment.band, name)
        band = experiment.band.shown(name) if found and experiment.band else None
        metrics[name] = _metric([values], [pair.intervals.get(name)], pair.chance.get(name), band)
        metrics[name]["test"] = _test(found)
    return {
        "name": pair.name,
        "group": "Pairs",
        "about": f"{pair.a.reference} against {pair.b.reference}. Probe set: {pair.probe}.",
        "layers": [short_layer(label) for label in pair.layers_a],
        "steps": None,
        "metrics": metrics,
    }


def _track(experiment: Experiment, track: Trajectory) -> dict[str, Any]:
    metrics = {
        name: _metric(
            rows,
            track.intervals.get(name) or [None] * len(rows),
            track.chance.get(name),
            seed_level(experiment, [track], name),
        )
        for name, rows in track.series_layers.items()
        if len(rows) == len(track.steps)
    }
    return {
        "name": track.name,
        "group": "Tracks by step",
        "about": f"Checkpoints of {track.run} against {track.against}. Probe set: {track.probe}.",
        "layers": [short_layer(label) for label in track.layers],
        "steps": list(track.steps),
        "metrics": metrics,
    }


def _metric(
    values: list[list[float | None]],
    ends: list[tuple[float, float] | None],
    chance: float | None,
    band: tuple[float, float] | None,
) -> dict[str, Any]:
    return {"values": values, "ends": ends, "chance": chance, "band": band, "test": None}


def _test(found: Verdict | None) -> dict[str, Any] | None:
    return None if found is None else {"word": found.word, "p": found.test.p_value}
