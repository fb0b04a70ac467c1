"""How figures are drawn with matplotlib: the styles of report and paper, lines, colours, maps, legends."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .labels import BASELINE_GREYS, COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from .hrsa_charts import HeatMap

#: Widths of one column and of the page of a paper, in inches.
COLUMN, PAGE = 3.25, 6.75
MARKERS = "osD^vP"
#: A second channel beside colour: dash patterns of lines, hatches of bars.
DASHES = ("-", "--", "-.", ":")
HATCHES = ("", "..", "xx", "--")
_COMMON: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "text.parse_math": False,
}
REPORT = _COMMON | {"font.size": 9, "axes.titlesize": 10, "figure.dpi": 160}
PAPER = _COMMON | {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "pdf.fonttype": 42,  # text stays text, as publishers ask
}


@dataclass(frozen=True)
class SavedFigure:
    """A figure on disk (PNG, PDF) and what stands below it."""

    png: Path
    pdf: Path
    caption: str


@contextlib.contextmanager
def new_figure(style: dict[Any, Any], width: float, height: float) -> Generator[Figure]:
    """A figure in the style of :data:`REPORT` or :data:`PAPER`; width and height in inches.

    It stands outside pyplot's global state: no display, nothing left open after an error.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def panels(figure: Figure, count: int, columns: int) -> list[Axes]:
    """So many panels in rows of `columns`."""
    axes = list(figure.subplots(math.ceil(count / columns), columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    return axes[:count]


def letter(axis: Axes, index: int) -> None:
    """Name a panel ``A``, ``B``, ..., so that a text can speak of it."""
    axis.annotate(
        chr(ord("A") + index),
        (0, 1),
        xycoords="axes fraction",
        xytext=(-6, 5),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontweight="bold",
        annotation_clip=False,
    )


def save(figure: Figure, path: Path, caption: str) -> SavedFigure:
    """Write a figure as PNG (300 dots an inch) and PDF; the same input gives the same bytes."""
    drawn = SavedFigure(path.with_name(f"{path.name}.png"), path.with_name(f"{path.name}.pdf"), caption)
    figure.savefig(drawn.png, dpi=300)
    figure.savefig(drawn.pdf, metadata={"CreationDate": None})
    return drawn


def safe_name(name: str) -> str:
    """A file name from a name read in a file: letters, digits, ``.``, ``_`` and ``-`` only."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "unnamed"


def legend_below(figure: Figure, columns: int) -> None:
    """One legend for all panels, each name once, below them."""
    handles = {
        label: handle
        for axis in figure.axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    if handles:
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=min(columns, len(handles))
        )


def colour(index: int) -> str:
    """Palette colour of a run; greys for baselines (negative indices)."""
    if index >= 0:
        return COLOURS[index % len(COLOURS)]
    return BASELINE_GREYS[(-1 - index) % len(BASELINE_GREYS)]


def line_style(index: int) -> dict[str, Any]:
    """Colour, dashes and marker of the index-th line: three channels, so that none is needed."""
    return {
        "color": colour(index),
        "ls": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def show_map(axis: Axes, heat_map: HeatMap) -> AxesImage:
    """Draw a heat map, the first layers at the lower left; returns the image, for its colour bar."""
    low, high = heat_map.limits
    axis.grid(visible=False)
    return axis.imshow(
        [with_gaps(row) for row in heat_map.z],
        vmin=low,
        vmax=high,
        cmap="RdBu_r" if low < 0 else "cividis",
        origin="lower",
        interpolation="none",
    )


def few_ticks(set_ticks: Callable[..., Any], labels: Sequence[str], most: int, **options: Any) -> None:
    """Label at most about `most` places of an axis, the last always among them."""
    stride = math.ceil(len(labels) / most)
    places = sorted({*range(0, len(labels) - stride, stride), len(labels) - 1})
    set_ticks(places, [labels[place] for place in places], **options)


def step_axis(axis: Axes, steps: Sequence[float], **options: Any) -> None:
    """A logarithmic axis that keeps step 0, with labels at the given steps."""
    axis.set_xscale("symlog", base=2, linthresh=1, linscale=0.5)
    axis.set_xticks(steps, [f"{step:g}" for step in steps], **options)
    axis.minorticks_off()


def with_gaps(values: Sequence[float | None]) -> list[float]:
    """Values as matplotlib takes them: not a number where there is none."""
    return [math.nan if value is None else value for value in values]
