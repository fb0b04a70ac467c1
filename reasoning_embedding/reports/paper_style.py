"""How figures for a paper are drawn: column widths, fonts that stay text, PNG and PDF of each."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .labels import COLOURS, DASHES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Widths of one column and of the page, in inches.
COLUMN, PAGE = 3.25, 6.75
MARKERS = "osD^vP"
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "pdf.fonttype": 42,  # text stays text, as publishers ask
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Drawn:
    """A figure on disk (PNG, PDF) and what stands below it."""

    png: Path
    pdf: Path
    caption: str


@contextlib.contextmanager
def paper_figure(width: float, height: float) -> Generator[Figure]:
    """A figure in the style of papers, without pyplot's global state.

    Parameters
    ----------
    width, height : float
        Inches.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def save(figure: Figure, path: Path, caption: str) -> Drawn:
    """Write a figure as PNG (300 dots an inch) and PDF; the same input gives the same bytes."""
    drawn = Drawn(path.with_name(f"{path.name}.png"), path.with_name(f"{path.name}.pdf"), caption)
    figure.savefig(drawn.png, dpi=300)
    figure.savefig(drawn.pdf, metadata={"CreationDate": None})
    return drawn


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


def line_style(index: int) -> dict[str, Any]:
    """Colour, dashes and marker of the index-th line: three channels, so that none is needed."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "ls": DASHES[index % len(DASHES)][0],
        "marker": MARKERS[index % len(MARKERS)],
    }
