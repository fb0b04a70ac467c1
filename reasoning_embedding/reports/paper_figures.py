"""The figures of a paper on reasoning backbones: heat maps, probes, dynamics and spectra."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .backbone_pairs import backbone_pairs, training_pairs
from .figures import safe_name
from .hrsa_charts import HeatMap, heat_maps, probe_note
from .hrsa_effects import accuracies
from .labels import COLOURS
from .paper_dynamics import draw_dynamics, draw_spectra
from .paper_style import COLUMN, PAGE, Drawn, legend_below, paper_figure, save
from .records import Experiment, Pair

_MAPS = ("dimension_correlation", "cka", "knn_jaccard")
#: Groups of bars that stand side by side without their names touching.
_GROUPS = 4
_SHORT = {"dimension_correlation": "Dimension-wise correlation", "cka": "Linear CKA"}


def paper_figures(experiment: Experiment, folder: Path) -> list[Drawn]:
    """Draw every figure the experiment has data for, in the order of a paper."""
    pairs = backbone_pairs(experiment)
    made: list[Drawn] = []
    for pair in pairs:
        name = safe_name(f"heatmaps-{pair.base}-{pair.variant}")
        made += draw_heat_maps(experiment, pair.sides, folder / name)
    for trained in training_pairs(experiment):
        made += draw_heat_maps(
            experiment, [(trained.name, trained)], folder / safe_name(f"heatmaps-training-{trained.name}")
        )
    probed = [(f"{pair.name}\n{words}", side) for pair in pairs for words, side in pair.sides] or [
        (trained.name, trained) for trained in training_pairs(experiment)
    ]
    made += draw_probes([(name, side) for name, side in probed if side.probe_transfer], folder / "probes")
    made += draw_dynamics(experiment, folder)
    return made + draw_spectra(experiment, folder / "spectra")


def draw_heat_maps(experiment: Experiment, sides: Sequence[tuple[str, Pair]], path: Path) -> list[Drawn]:
    """Layer by layer maps of correlation, CKA and k-NN overlap, a row of panels for each of `sides`."""
    by_pair = {pair.name: [m for m in heat_maps(experiment) if m.pair == pair.name] for _, pair in sides}
    rows = [(words, pair, _chosen(by_pair[pair.name])) for words, pair in sides]
    rows = [row for row in rows if row[2]]
    if not rows:
        return []
    columns = max(len(maps) for *_, maps in rows)
    with paper_figure(PAGE if columns > 1 else COLUMN, 0.35 + 1.95 * len(rows)) as figure:
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
    return [m for start in _MAPS for m in maps if m.metric.split("@")[0] == start][:3]


def _heat_map(figure: Any, axis: Any, heat_map: HeatMap, pair: Pair, words: str) -> None:
    low, high = heat_map.limits
    image = axis.imshow(
        [[math.nan if value is None else value for value in row] for row in heat_map.z],
        vmin=low,
        vmax=high,
        cmap="RdBu_r" if low < 0 else "cividis",
        origin="lower",
        interpolation="none",
    )
    axis.grid(visible=False)
    for ticks, labels in ((axis.set_xticks, heat_map.columns), (axis.set_yticks, heat_map.rows)):
        stride = math.ceil(len(labels) / 8)
        places = sorted({*range(0, len(labels) - stride, stride), len(labels) - 1})
        ticks(places, [labels[place] for place in places])
    axis.tick_params(axis="x", rotation=45)
    axis.set_title(_SHORT.get(heat_map.metric, f"k-NN overlap (k = {heat_map.metric.split('@')[-1]})"))
    axis.set_xlabel(pair.b.reference)
    axis.set_ylabel(f"{words}\n{pair.a.reference}" if words else "")
    # A bar within the panel is as high as the map, whatever room a row of panels leaves.
    bar = figure.colorbar(image, cax=axis.inset_axes((1.04, 0, 0.05, 1)))
    bar.outline.set_visible(False)


def draw_probes(sides: Sequence[tuple[str, Pair]], path: Path) -> list[Drawn]:
    """Bars of own and transferred probe accuracy with intervals, the shuffled control and chance."""
    if not sides:
        return []
    rows = [sides[start : start + _GROUPS] for start in range(0, len(sides), _GROUPS)]
    columns = min(_GROUPS, len(sides))
    with paper_figure(COLUMN if columns < 3 else PAGE, 0.7 + 1.9 * len(rows)) as figure:
        for axis, line in zip(figure.subplots(len(rows), 1, squeeze=False).flat, rows, strict=True):
            for place, (_, pair) in enumerate(line):
                _probe_bars(axis, place, pair)
            axis.set_xticks(range(len(line)), [name for name, _ in line])
            axis.set(ylabel="probe accuracy (fraction)", ylim=(0, 1.02), xlim=(-0.55, columns - 0.45))
            axis.grid(visible=False, axis="x")
        legend_below(figure, 2 if len(sides) < 3 else 3)
        who = "; ".join(
            f"{name.replace(chr(10), ', ')}: A = {pair.a.reference}, B = {pair.b.reference}"
            for name, pair in sides
        )
        tests = ", ".join(dict.fromkeys(str((pair.probe_transfer or {}).get("n")) for _, pair in sides))
        caption = f"Linear probes on text features, 95 % Wilson intervals over {tests} test texts. {who}."
        return [save(figure, path, caption)]


def _probe_bars(axis: Any, place: int, pair: Pair) -> None:
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
