"""PNG figures of a report, drawn from the same data as its page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from .charts import Bars, EffectChart, Line, LineChart, Panel, PointPlot
from .hrsa_charts import HeatMap
from .style import (
    DASHES,
    HATCHES,
    MARKERS,
    REPORT,
    colour,
    few_ticks,
    legend_below,
    letter,
    new_figure,
    panels,
    show_map,
    step_axis,
    with_gaps,
)
from .svg import level_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_lines(chart: LineChart, path: Path) -> None:
    """Draw the panels of a chart that are asked for most side by side, three a row, under one legend."""
    shown = chart.shown
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    with new_figure(REPORT, 4.2 * columns + 0.4, 3.0 * rows + 0.7) as figure:
        for index, (axis, panel) in enumerate(zip(panels(figure, len(shown), columns), shown, strict=True)):
            _draw_panel(axis, chart, panel)
            if len(shown) > 1:
                letter(axis, index)
        figure.suptitle(chart.title, fontsize=11)
        legend_below(figure, 4)
        figure.savefig(path)


def draw_effects(chart: EffectChart, path: Path) -> None:
    """Draw points with their intervals, a panel a quantity with its letter, two a row."""
    columns = min(2, len(chart.panels))
    rows = math.ceil(len(chart.panels) / columns)
    most = max(len(panel.rows) for panel in chart.panels)
    names = level_names(chart)
    with new_figure(REPORT, 5.2 * columns + 0.3, rows * (1.0 + 0.34 * most) + 0.8) as figure:
        for index, (axis, panel) in enumerate(
            zip(panels(figure, len(chart.panels), columns), chart.panels, strict=True)
        ):
            if panel.band:
                axis.axvspan(*panel.band, color="#999999", alpha=0.3, lw=0, label=panel.band_label)
            if panel.zero:
                axis.axvline(0, color="black", lw=0.9, label=panel.zero)
            for place, row in enumerate(panel.rows):
                for name, value in row.levels.items():
                    style = (0, (1, 1)) if names.index(name) % 2 else "-"
                    tint = str(0.35 + 0.15 * (names.index(name) // 2))
                    axis.vlines(value, place - 0.3, place + 0.3, color=tint, ls=style, lw=1.6, label=name)
                if row.interval:
                    axis.hlines(place, *row.interval, color=colour(row.look), lw=1.8)
                axis.plot(row.value, place, "o", color=colour(row.look), ms=5)
            axis.set_yticks(range(len(panel.rows)), [row.name for row in panel.rows])
            axis.set_ylim(len(panel.rows) - 0.4, -0.6)
            axis.grid(visible=False, axis="y")
            axis.set_title(panel.label, fontsize=9)
            if len(chart.panels) > 1:
                letter(axis, index)
        figure.suptitle(chart.title, fontsize=11)
        legend_below(figure, 4)
        figure.savefig(path)


def draw_heat_maps(maps: list[HeatMap], path: Path) -> None:
    """Draw the maps of one pair side by side, each with its own colour bar."""
    size = 2.6 + 0.16 * max(len(maps[0].rows), len(maps[0].columns))
    with new_figure(REPORT, (size + 0.9) * len(maps), size + 0.7) as figure:
        for axis, heat_map in zip(panels(figure, len(maps), len(maps)), maps, strict=True):
            image = show_map(axis, heat_map)
            few_ticks(axis.set_xticks, heat_map.columns, 16, rotation=60, fontsize=7)
            few_ticks(axis.set_yticks, heat_map.rows, 16, fontsize=7)
            axis.set(title=heat_map.label, xlabel=heat_map.column_title, ylabel=heat_map.row_title)
            figure.colorbar(image, ax=axis, shrink=0.8)
        figure.suptitle(f"{maps[0].title} · {maps[0].note}", fontsize=10)
        figure.savefig(path)


def draw_bars(bars: Bars, path: Path) -> None:
    """Draw grouped bars of the last scores; a black line across a bar is its score at step 0."""
    count = len(bars.models)
    width = 0.8 / count
    with new_figure(REPORT, max(5.0, 1.2 + len(bars.tasks) * (0.6 + 0.32 * count)), 3.6) as figure:
        axis = figure.subplots()
        for index, model in enumerate(bars.models):
            places = [task + (index - (count - 1) / 2) * width for task in range(len(bars.tasks))]
            heights = with_gaps(bars.last[index])
            tint, style = bars.looks[index]
            axis.bar(
                places,
                heights,
                width * 0.9,
                label=model,
                color=colour(tint),
                hatch="//" if tint < 0 else HATCHES[style % len(HATCHES)],
            )
            starts = [(x, y) for x, y in zip(places, bars.first[index], strict=True) if y is not None]
            label = "step 0" if starts and index == 0 else None
            half = width * 0.45
            for place, start in starts:
                axis.plot([place - half, place + half], [start, start], color="black", lw=1.6, label=label)
                label = None
        axis.set_xticks(range(len(bars.tasks)), bars.tasks, rotation=0 if len(bars.tasks) < 6 else 25)
        axis.set(ylabel=f"{bars.label} (fraction)", title=f"{bars.label} at the last step")
        axis.set_ylim(0, None)
        axis.grid(visible=False, axis="x")
        axis.set_axisbelow(True)
        legend_below(figure, 8)
        figure.savefig(path)


def draw_points(plots: list[PointPlot], path: Path) -> None:
    """Draw projections side by side, four a row, one colour and marker a family, under one legend."""
    columns = min(4, len(plots))
    rows = math.ceil(len(plots) / columns)
    with new_figure(REPORT, max(4.2, 2.6 * columns + 0.4), 2.75 * rows + 0.9) as figure:
        for axis, plot in zip(panels(figure, len(plots), columns), plots, strict=True):
            for index, family in enumerate(plot.families):
                points = plot.points[index]
                axis.scatter(
                    [x for x, _ in points],
                    [y for _, y in points],
                    s=34,
                    color=colour(index),
                    marker=MARKERS[index % len(MARKERS)],
                    alpha=0.85,
                    label=family,
                )
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(f"{plot.title}\n{plot.note}", fontsize=8)
        figure.suptitle(plots[0].heading, fontsize=10)
        legend_below(figure, 2 * columns)  # two legend columns fit below a single panel
        figure.savefig(path)


def _draw_panel(axis: Axes, chart: LineChart, panel: Panel) -> None:
    if panel.band:
        axis.axhspan(*panel.band, color="#999999", alpha=0.3, lw=0, label=panel.band_label)
    if panel.chance is not None:
        axis.axhline(panel.chance, color="#666666", ls=(0, (1, 2)), lw=1.2, label="row shuffle")
    for line in panel.lines:
        _draw_line(axis, line)
    if chart.ticks:
        few_ticks(axis.set_xticks, chart.ticks, 16, rotation=60, fontsize=7)
    elif chart.log:
        steps = sorted({x for line in panel.lines for x in line.x})
        step_axis(axis, steps if len(steps) <= 10 else steps[:: math.ceil(len(steps) / 10)], rotation=60)
    axis.set(xlabel=chart.x_label, ylabel=panel.label)


def _draw_line(axis: Axes, line: Line) -> None:
    many = len(line.x) > 60
    axis.plot(
        line.x,
        with_gaps(line.y),
        color=colour(line.colour),
        ls=DASHES[line.style % len(DASHES)],
        lw=1.0 if many else 1.6,
        alpha=0.8 if many else 1.0,
        marker=None if many else MARKERS[(line.colour + line.style) % 5],
        markersize=3.5,
        label=line.name,
    )
