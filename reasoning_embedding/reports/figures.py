"""PNG figures for papers and slides, drawn from the same data as the page."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .charts import Bars, Line, LineChart, Panel
from .hrsa_charts import HeatMap
from .labels import COLOURS, DASHES, HATCHES
from .number_sequences import PointPlot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "text.parse_math": False,
}
_GREYS = ("#666666", "#AAAAAA", "#CCCCCC")


def draw_lines(chart: LineChart, path: Path, only: tuple[str, ...] | None = None) -> None:
    """Draw panels of a chart side by side, three a row, under one legend.

    Parameters
    ----------
    chart : LineChart
        The curves.
    path : Path
        The PNG.
    only : tuple of str, optional
        Keys of the panels to draw; absent: all.
    """
    panels = [panel for panel in chart.panels if only is None or panel.key in only] or chart.panels[:1]
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    with _figure(4.2 * columns + 0.4, 3.0 * rows + 0.7) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).flat
        for axis, panel in zip(axes, panels, strict=False):
            _draw_panel(axis, chart, panel)
        for axis in list(figure.axes)[len(panels) :]:
            axis.remove()
        handles = {
            label: handle
            for axis in figure.axes
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.suptitle(chart.title, fontsize=11)
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, max(1, len(handles)))
        )
        figure.savefig(path)


def draw_heat_maps(maps: list[HeatMap], path: Path) -> None:
    """Draw the maps of one pair side by side, each with its own colour bar."""
    size = 2.6 + 0.16 * max(len(maps[0].rows), len(maps[0].columns))
    with _figure((size + 0.9) * len(maps), size + 0.7) as figure:
        for axis, heat_map in zip(figure.subplots(1, len(maps), squeeze=False).flat, maps, strict=True):
            values = [[math.nan if value is None else value for value in row] for row in heat_map.z]
            low, high = heat_map.limits
            image = axis.imshow(
                values,
                vmin=low,
                vmax=high,
                cmap="RdBu_r" if low < 0 else "cividis",
                origin="lower",
                interpolation="none",
            )
            _tick(axis.set_xticks, heat_map.columns, rotation=60)
            _tick(axis.set_yticks, heat_map.rows)
            axis.set(title=heat_map.label, xlabel=heat_map.column_title, ylabel=heat_map.row_title)
            axis.grid(visible=False)
            figure.colorbar(image, ax=axis, shrink=0.8)
        figure.suptitle(f"{maps[0].pair} · {maps[0].note}", fontsize=10)
        figure.savefig(path)


def draw_bars(bars: Bars, path: Path) -> None:
    """Draw grouped bars of the last scores; a black line across a bar is its score at step 0."""
    count = len(bars.models)
    width = 0.8 / count
    with _figure(max(5.0, 1.2 + len(bars.tasks) * (0.6 + 0.32 * count)), 3.6) as figure:
        axis = figure.subplots()
        for index, model in enumerate(bars.models):
            places = [task + (index - (count - 1) / 2) * width for task in range(len(bars.tasks))]
            heights = [math.nan if value is None else value for value in bars.last[index]]
            tint, style = bars.looks[index]
            axis.bar(
                places,
                heights,
                width * 0.9,
                label=model,
                color=_colour(tint),
                hatch="//" if tint < 0 else HATCHES[style % len(HATCHES)][0],
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
        figure.legend(loc="outside lower center", ncols=min(8, count + 1))
        figure.savefig(path)


def draw_points(plots: list[PointPlot], path: Path) -> None:
    """Draw projections side by side, four a row, one colour and marker a family, under one legend."""
    columns = min(4, len(plots))
    rows = math.ceil(len(plots) / columns)
    with _figure(max(4.2, 2.6 * columns + 0.4), 2.75 * rows + 0.9) as figure:
        for axis, plot in zip(figure.subplots(rows, columns, squeeze=False).flat, plots, strict=False):
            for index, family in enumerate(plot.families):
                points = plot.points[index]
                axis.scatter(
                    [x for x, _ in points],
                    [y for _, y in points],
                    s=34,
                    color=COLOURS[index % len(COLOURS)],
                    marker="osD^vP"[index % 6],
                    alpha=0.85,
                    label=family,
                )
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(f"{plot.title}\n{plot.note}", fontsize=8)
        for axis in list(figure.axes)[len(plots) :]:
            axis.remove()
        figure.suptitle(plots[0].heading, fontsize=10)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        # Two legend columns fit below a single panel.
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 2 * columns))
        figure.savefig(path)


def safe_name(name: str) -> str:
    """A file name from a name read in a file: letters, digits, ``.``, ``_`` and ``-`` only."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "unnamed"


@contextlib.contextmanager
def _figure(width: float, height: float) -> Generator[Figure]:
    """A figure in our style without pyplot's global state: no display, nothing left open after an error."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def _draw_panel(axis: Axes, chart: LineChart, panel: Panel) -> None:
    if panel.band:
        axis.axhspan(*panel.band, color="#999999", alpha=0.3, lw=0, label=panel.band_label)
    if panel.chance is not None:
        axis.axhline(panel.chance, color="#666666", ls=(0, (1, 2)), lw=1.2, label="chance")
    for line in panel.lines:
        _draw_line(axis, line)
    if chart.ticks:
        _tick(axis.set_xticks, chart.ticks, rotation=60)
    elif chart.log:
        axis.set_xscale("symlog", base=2, linthresh=1, linscale=0.5)
        steps = sorted({x for line in panel.lines for x in line.x})
        shown = steps if len(steps) <= 10 else steps[:: math.ceil(len(steps) / 10)]
        axis.set_xticks(shown, [f"{step:g}" for step in shown], rotation=60)
        axis.minorticks_off()
    axis.set(xlabel=chart.x_label, ylabel=panel.label)


def _draw_line(axis: Axes, line: Line) -> None:
    many = len(line.x) > 60
    values = [math.nan if value is None else value for value in line.y]
    axis.plot(
        line.x,
        values,
        color=_colour(line.colour),
        ls=DASHES[line.style % len(DASHES)][0],
        lw=1.0 if many else 1.6,
        alpha=0.8 if many else 1.0,
        marker=None if many else "osD^v"[(line.colour + line.style) % 5],
        markersize=3.5,
        label=line.name,
    )


def _colour(index: int) -> str:
    """Palette colour of a run; greys for baselines (negative indices)."""
    return COLOURS[index % len(COLOURS)] if index >= 0 else _GREYS[(-1 - index) % len(_GREYS)]


def _tick(set_ticks: Any, labels: list[str], rotation: float = 0) -> None:
    """At most about 16 ticks, the last always among them."""
    stride = math.ceil(len(labels) / 16)
    places = sorted({*range(0, len(labels), stride), len(labels) - 1})
    set_ticks(places, [labels[place] for place in places], rotation=rotation, fontsize=7)
