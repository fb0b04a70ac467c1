"""The figures of a paper on reasoning backbones: heat maps, probes, dynamics and spectra."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reasoning_embedding.hrsa.trajectory import MeasuredTrajectory
from reasoning_embedding.reports.hrsa_charts import HeatMap, heat_maps, probe_note, seed_level, shared_chance
from reasoning_embedding.reports.labels import COLOURS, metric_label
from reasoning_embedding.reports.records import AnalysedPair, Experiment
from reasoning_embedding.reports.style import (
    COLUMN,
    PAGE,
    PAPER,
    SavedFigure,
    few_ticks,
    legend_below,
    line_style,
    new_figure,
    panels,
    safe_name,
    save,
    show_map,
    step_axis,
    with_gaps,
)

from .backbones import accuracies, backbone_pairs, training_pairs

#: Maps from left to right; of CKA the form that attention sinks do not decide, where a record has it.
_MAPS = (("dimension_correlation",), ("cka_unit", "cka"), ("knn_jaccard",))
#: Groups of bars that stand side by side without their names touching.
_GROUPS = 4


def paper_figures(experiment: Experiment, folder: Path) -> list[SavedFigure]:
    """Draw every figure the experiment has data for, in the order of a paper."""
    pairs = backbone_pairs(experiment)
    made: list[SavedFigure] = []
    for pair in pairs:
        name = safe_name(f"heatmaps-{pair.base}-{pair.variant}")
        made += draw_heat_maps(experiment, pair.analysed, folder / name)
    for trained in training_pairs(experiment):
        made += draw_heat_maps(
            experiment, [(trained.name, trained)], folder / safe_name(f"heatmaps-training-{trained.name}")
        )
    probed = [(f"{pair.name}\n{words}", side) for pair in pairs for words, side in pair.analysed] or [
        (trained.name, trained) for trained in training_pairs(experiment)
    ]
    made += draw_probes([(name, side) for name, side in probed if side.probe_transfer], folder / "probes")
    made += draw_dynamics(experiment, folder)
    return made + draw_spectra(experiment, folder / "spectra")


def draw_heat_maps(
    experiment: Experiment, analysed: Sequence[tuple[str, AnalysedPair]], path: Path
) -> list[SavedFigure]:
    """Layer by layer maps of correlation, CKA and k-NN overlap, a row of panels for each of `analysed`."""
    by_pair = {pair.name: [m for m in heat_maps(experiment) if m.pair == pair.name] for _, pair in analysed}
    rows = [(words, pair, _chosen(by_pair[pair.name])) for words, pair in analysed]
    rows = [row for row in rows if row[2]]
    if not rows:
        return []
    columns = max(len(maps) for *_, maps in rows)
    with new_figure(PAPER, PAGE if columns > 1 else COLUMN, 0.35 + 1.95 * len(rows)) as figure:
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for (words, pair, maps), line in zip(rows, axes, strict=True):
            for axis in line[len(maps) :]:
                axis.remove()
            for index, (axis, heat_map) in enumerate(zip(line, maps, strict=False)):
                _heat_map(figure, axis, heat_map, pair, words if index == 0 else "")
        who = "; ".join(f"{words}: {pair.a.reference} v {pair.b.reference}" for words, pair, _ in rows)
        caption = f"Similarity of all layers. {who}. {probe_note([pair for _, pair, _ in rows])}"
        return [save(figure, path, caption)]


def _chosen(maps: list[HeatMap]) -> list[HeatMap]:
    by_start = {m.metric.split("@")[0]: m for m in reversed(maps)}
    found = [next((by_start[start] for start in forms if start in by_start), None) for forms in _MAPS]
    return [m for m in found if m is not None]


def _heat_map(figure: Any, axis: Any, heat_map: HeatMap, pair: AnalysedPair, words: str) -> None:
    image = show_map(axis, heat_map)
    few_ticks(axis.set_xticks, heat_map.columns, 8)
    few_ticks(axis.set_yticks, heat_map.rows, 8)
    axis.tick_params(axis="x", rotation=45)
    axis.set_title(_title(heat_map.metric))
    axis.set_xlabel(pair.b.reference)
    axis.set_ylabel(f"{words}\n{pair.a.reference}" if words else "")
    # A bar within the panel is as high as the map, whatever room a row of panels leaves.
    bar = figure.colorbar(image, cax=axis.inset_axes((1.04, 0, 0.05, 1)))
    bar.outline.set_visible(False)


def draw_probes(analysed: Sequence[tuple[str, AnalysedPair]], path: Path) -> list[SavedFigure]:
    """Bars of own and transferred probe accuracy with intervals, the shuffled control and chance."""
    if not analysed:
        return []
    rows = [analysed[start : start + _GROUPS] for start in range(0, len(analysed), _GROUPS)]
    columns = min(_GROUPS, len(analysed))
    with new_figure(PAPER, COLUMN if columns < 3 else PAGE, 0.7 + 1.9 * len(rows)) as figure:
        for axis, line in zip(panels(figure, len(rows), 1), rows, strict=True):
            for place, (_, pair) in enumerate(line):
                _probe_bars(axis, place, pair)
            axis.set_xticks(range(len(line)), [name for name, _ in line])
            axis.set(ylabel="probe accuracy (fraction)", ylim=(0, 1.02), xlim=(-0.55, columns - 0.45))
            axis.grid(visible=False, axis="x")
        legend_below(figure, 2 if len(analysed) < 3 else 3)
        who = "; ".join(
            f"{name.replace(chr(10), ', ')}: A = {pair.a.reference}, B = {pair.b.reference}"
            for name, pair in analysed
        )
        tests = ", ".join(dict.fromkeys(str((pair.probe_transfer or {}).get("n")) for _, pair in analysed))
        caption = f"Linear probes on text features, 95 % Wilson intervals over {tests} test texts. {who}."
        return [save(figure, path, caption)]


def _probe_bars(axis: Any, place: int, pair: AnalysedPair) -> None:
    """A group of bars at one place: the pair's accuracies with intervals, its control and chance level as lines."""
    width, found = 0.2, accuracies(pair.probe_transfer)
    for index, accuracy in enumerate(found):
        x = place + (index - (len(found) - 1) / 2) * width
        low, high = accuracy.bounds
        axis.bar(
            x,
            accuracy.value,
            width * 0.92,
            color=COLOURS[index],
            label=accuracy.label,
            hatch="///" if accuracy.key in ("a_to_b", "b_to_a") else None,
            edgecolor="white",
            linewidth=0.5,
        )
        ends = [[accuracy.value - low], [high - accuracy.value]]
        axis.errorbar(x, accuracy.value, ends, color="black", lw=0.8, capsize=1.5)
    for key, label, dashes in (("permuted_control", "shuffled labels", ":"), ("chance", "chance", "-")):
        value = (pair.probe_transfer or {}).get(key)
        if value is not None:
            axis.plot([place - 0.45, place + 0.45], [value] * 2, color="black", ls=dashes, label=label)


_METRICS = ("dimension_correlation", "h_inv_rescaled", "cka", "knn_jaccard@10")
_OWN_START = "own step 0"


def draw_dynamics(experiment: Experiment, folder: Path) -> list[SavedFigure]:
    """Similarity by step at the final norm: a figure a reference, with intervals, row shuffle and seed band."""
    groups: dict[tuple[str, str], list[MeasuredTrajectory]] = {}
    for track in experiment.trajectories:
        own = track.against == f"run:{track.run}@first"
        groups.setdefault((_OWN_START if own else track.against, track.probe.hash), []).append(track)
    made: list[SavedFigure] = []
    for (reference, probe), tracks in groups.items():
        alone = sum(name == reference for name, _ in groups) == 1
        name = safe_name(f"dynamics-{reference}" + ("" if alone else f"-{probe[:6]}"))
        made += _dynamics(experiment, reference, tracks, folder / name)
    return made


def _dynamics(
    experiment: Experiment, reference: str, tracks: list[MeasuredTrajectory], path: Path
) -> list[SavedFigure]:
    metrics = [m for m in _METRICS if any(_known(track.series.get(m, [])) for track in tracks)]
    tracks = [track for track in tracks if len(track.steps) > 1]
    if not metrics or not tracks:
        return []
    columns = min(2, len(metrics))
    rows = math.ceil(len(metrics) / columns)
    with new_figure(PAPER, PAGE if columns > 1 else COLUMN, 0.7 + 1.75 * rows) as figure:
        for axis, metric in zip(panels(figure, len(metrics), columns), metrics, strict=True):
            if (band := seed_level(experiment, tracks, metric)) is not None:
                axis.axhspan(*band, color="#999999", alpha=0.35, lw=0, label="seed band (95 %)")
            if (chance := shared_chance(tracks, metric)) is not None:
                axis.axhline(chance, color="#555555", ls=(0, (1, 2)), lw=1, label="row shuffle")
            for index, track in enumerate(tracks):
                _line(axis, track, metric, _look(experiment, track, index))
            _steps(axis, tracks)
            axis.set(ylabel=_title(metric))
        figure.suptitle(f"Similarity to {reference}, final norm", fontsize=8)
        legend_below(figure, 6)
        drawn = any(seed_level(experiment, tracks, metric) for metric in metrics)
        grey = f"; grey: the seed band, {experiment.band.description}" if experiment.band and drawn else ""
        caption = (
            f"Similarity of each checkpoint to {reference} at the final norm; shaded: 95 % bootstrap intervals over "
            f"texts{grey}. {probe_note(tracks)}"
        )
        return [save(figure, path, caption)]


def _look(experiment: Experiment, track: MeasuredTrajectory, index: int) -> dict[str, Any]:
    """How a run is drawn in every figure; a track of no run of the experiment comes after them."""
    names = [run.name for run in experiment.runs]
    return line_style(names.index(track.run) if track.run in names else len(names) + index)


def _line(axis: Any, track: MeasuredTrajectory, metric: str, style: dict[str, Any]) -> None:
    values = with_gaps(track.series.get(metric, []))
    if not values:
        return
    axis.plot(track.steps, values, label=track.run, **style)
    ends = track.intervals.get(metric) or []
    if len(ends) == len(values) and any(ends):
        low, high = ([math.nan if pair is None else pair[side] for pair in ends] for side in (0, 1))
        axis.fill_between(track.steps, low, high, color=style["color"], alpha=0.2, lw=0)


def draw_spectra(experiment: Experiment, path: Path) -> list[SavedFigure]:
    """RankMe and alpha-ReQ of every series of checkpoints: by step, and as a path in their plane."""
    series = {}
    for track in experiment.trajectories:
        if len(track.steps) > 1 and _known(track.spectrum.get("rankme_sigma", [])):
            series.setdefault((track.run, track.features, track.probe.hash), track)
    if not series:
        return []
    tracks = list(series.values())
    with new_figure(PAPER, PAGE, 2.5) as figure:
        first, second, plane = figure.subplots(1, 3)
        for index, track in enumerate(tracks):
            style = _look(experiment, track, index)
            name = track.run if len({t.probe.hash for t in tracks}) == 1 else f"{track.run}, {track.probe}"
            rank, decay = (with_gaps(track.spectrum.get(key, [])) for key in ("rankme_sigma", "alpha"))
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


def _steps(axis: Any, tracks: list[MeasuredTrajectory]) -> None:
    """A logarithmic axis that keeps step 0."""
    last = max(step for track in tracks for step in track.steps)
    shown = [0, *(4**power for power in range(12) if 2.5 * 4**power <= last), last]
    step_axis(axis, shown)
    axis.set(xlabel="training step")


def _title(metric: str) -> str:
    """Name of a metric; of overlaps, a paper's figures show the Jaccard ones only."""
    return metric_label(metric).title.replace("k-NN overlap (Jaccard, ", "k-NN overlap (")


def _known(values: list[float | None]) -> bool:
    return any(value is not None for value in values)
