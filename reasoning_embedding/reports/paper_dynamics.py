"""Dynamics by step for a paper: similarity to a reference, and the spectrum of a series of checkpoints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from reasoning_embedding.hrsa.trajectory import Trajectory

from .figures import safe_name
from .hrsa_charts import probe_note, seed_level
from .labels import metric_label
from .paper_style import COLUMN, PAGE, Drawn, legend_below, line_style, paper_figure, save
from .records import Experiment

_METRICS = ("dimension_correlation", "h_inv_rescaled", "cka", "knn_jaccard@10")
_OWN_START = "own step 0"


def draw_dynamics(experiment: Experiment, folder: Path) -> list[Drawn]:
    """Similarity by step at the final norm: a figure a reference, with intervals, chance and seed band."""
    groups: dict[tuple[str, str], list[Trajectory]] = {}
    for track in experiment.realignments:
        own = track.against == f"run:{track.run}@first"
        groups.setdefault((_OWN_START if own else track.against, track.probe.hash), []).append(track)
    made: list[Drawn] = []
    for (reference, probe), tracks in groups.items():
        alone = sum(name == reference for name, _ in groups) == 1
        name = safe_name(f"dynamics-{reference}" + ("" if alone else f"-{probe[:6]}"))
        made += _dynamics(experiment, reference, tracks, folder / name)
    return made


def _dynamics(experiment: Experiment, reference: str, tracks: list[Trajectory], path: Path) -> list[Drawn]:
    metrics = [m for m in _METRICS if any(_known(track.series.get(m, [])) for track in tracks)]
    tracks = [track for track in tracks if len(track.steps) > 1]
    if not metrics or not tracks:
        return []
    colours = {run.name: index for index, run in enumerate(experiment.runs)}
    columns = min(2, len(metrics))
    rows = math.ceil(len(metrics) / columns)
    with paper_figure(PAGE if columns > 1 else COLUMN, 0.7 + 1.75 * rows) as figure:
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axis, metric in zip(axes, metrics, strict=False):
            if (band := seed_level(experiment, tracks, metric)) is not None:
                axis.axhspan(*band, color="#999999", alpha=0.35, lw=0, label="seed band (95 %)")
            if len(chances := {track.chance.get(metric) for track in tracks}) == 1 and None not in chances:
                axis.axhline(chances.pop(), color="#555555", ls=(0, (1, 2)), lw=1, label="chance")
            for index, track in enumerate(tracks):
                _line(axis, track, metric, colours.get(track.run, len(colours) + index))
            _steps(axis, tracks)
            axis.set(ylabel=metric_label(metric).title.replace("k-NN overlap (Jaccard, ", "k-NN overlap ("))
        for axis in axes[len(metrics) :]:
            axis.remove()
        figure.suptitle(f"Similarity to {reference}, final norm", fontsize=8)
        legend_below(figure, 6)
        drawn = any(seed_level(experiment, tracks, metric) for metric in metrics)
        grey = f"; grey: the seed band, {experiment.band.makings}" if experiment.band and drawn else ""
        caption = (
            f"Similarity of each checkpoint to {reference} at the final norm; shaded: 95 % bootstrap intervals over "
            f"texts{grey}. {probe_note(tracks)}"
        )
        return [save(figure, path, caption)]


def _line(axis: Any, track: Trajectory, metric: str, index: int) -> None:
    values = [math.nan if value is None else value for value in track.series.get(metric, [])]
    if not values:
        return
    style = line_style(index)
    axis.plot(track.steps, values, label=track.run, **style)
    ends = track.intervals.get(metric) or []
    if len(ends) == len(values) and any(ends):
        low, high = ([math.nan if pair is None else pair[side] for pair in ends] for side in (0, 1))
        axis.fill_between(track.steps, low, high, color=style["color"], alpha=0.2, lw=0)


def draw_spectra(experiment: Experiment, path: Path) -> list[Drawn]:
    """RankMe and alpha-ReQ of every series of checkpoints: by step, and as a path in their plane."""
    series = {}
    for track in experiment.realignments:
        if len(track.steps) > 1 and _known(track.spectrum.get("rankme_sigma", [])):
            series.setdefault((track.run, track.features, track.probe.hash), track)
    if not series:
        return []
    colours = {run.name: index for index, run in enumerate(experiment.runs)}
    tracks = list(series.values())
    with paper_figure(PAGE, 2.5) as figure:
        first, second, plane = figure.subplots(1, 3)
        for index, track in enumerate(tracks):
            style = line_style(colours.get(track.run, len(colours) + index))
            name = track.run if len({t.probe.hash for t in tracks}) == 1 else f"{track.run}, {track.probe}"
            rank, decay = (
                [math.nan if value is None else value for value in track.spectrum.get(key, [])]
                for key in ("rankme_sigma", "alpha")
            )
            first.plot(track.steps, rank, label=name, **style)
            if decay:
                second.plot(track.steps, decay, **style)
                plane.plot(rank, decay, **style)
                plane.plot(rank[:1], decay[:1], marker="o", ms=7, mfc="none", color=style["color"], ls="none")
        for axis in (first, second):
            _steps(axis, tracks)
        features = " / ".join(sorted({track.features for track in tracks}))
        first.set(ylabel="RankMe")
        second.set(ylabel="alpha-ReQ")
        plane.set(xlabel="RankMe", ylabel="alpha-ReQ", title="ring: first step")
        legend_below(figure, 6)
        caption = (
            f"RankMe (from singular values) and alpha-ReQ of the {features} features of every checkpoint at the final "
            f"norm; right: the path of both. {probe_note(tracks)}"
        )
        return [save(figure, path, caption)]


def _steps(axis: Any, tracks: list[Trajectory]) -> None:
    """A logarithmic axis that keeps step 0."""
    axis.set_xscale("symlog", base=2, linthresh=1, linscale=0.5)
    last = max(step for track in tracks for step in track.steps)
    shown = [0, *(4**power for power in range(12) if 2.5 * 4**power <= last), last]
    axis.set_xticks(shown, [f"{step:g}" for step in shown])
    axis.minorticks_off()
    axis.set(xlabel="training step")


def _known(values: list[float | None]) -> bool:
    return any(value is not None for value in values)
