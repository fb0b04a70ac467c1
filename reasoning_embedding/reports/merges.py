"""The page of a merge: plots along its path, tables, all or nothing."""

from __future__ import annotations

import base64
import html
import importlib.util
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints.atomic import atomic_folder
from reasoning_embedding.errors import SetupError

from .charts import Line, LineChart, Panel
from .grid import to_html, to_markdown, to_text
from .merge_tables import (
    SIMILARITIES,
    axis_label,
    point_grid,
    read_merge,
    short_names,
    similar_to,
    tensor_grid,
)

FIGURE = "path.png"


def build_merge_page(folder: Path) -> Path:
    """Write ``report/`` into a merge's folder: ``index.html``, ``table.md`` and, of a path, ``path.png``.

    Parameters
    ----------
    folder : Path
        Holds ``merge.json``.

    Returns
    -------
    Path
        ``report/index.html``; it opens offline, from any place.

    Raises
    ------
    InputError
        If the folder holds no merge.
    SetupError
        If matplotlib is not installed, or the folder cannot be written.
    """
    record = read_merge(folder)
    chart = path_chart(record)
    if chart and importlib.util.find_spec("matplotlib") is None:
        raise SetupError("a report needs matplotlib", todo='pip install "reasoning-embedding[report]"')
    grids = [point_grid(record), tensor_grid(folder, record)]
    with atomic_folder(folder / "report") as target:
        if chart:
            from .figures import draw_lines

            draw_lines(chart, target / FIGURE)
        text = "\n".join(to_markdown(grid) for grid in grids)
        (target / "table.md").write_text(text, encoding="utf-8")
        picture = (target / FIGURE).read_bytes() if chart else None
        body = "".join(to_html(grid) for grid in grids)
        (target / "index.html").write_text(_page(record, body, picture), encoding="utf-8")
    return folder / "report" / "index.html"


def merge_tables(folder: Path) -> str:
    """Tensors and points of a merge as plain text, as wide as the terminal.

    Raises
    ------
    InputError
        If the folder holds no merge.
    """
    record = read_merge(folder)
    width = max(60, shutil.get_terminal_size(fallback=(110, 24)).columns)
    grids = [tensor_grid(folder, record)]
    if any("scores" in point or "similarity" in point for point in record["points"]):
        grids.append(point_grid(record))
    return "\n\n".join(f"{to_text(grid, width)}\n{grid.caption}" for grid in grids)


def path_chart(record: dict[str, Any]) -> LineChart | None:
    """Scores, clustering and similarity to each end by t; None where there is no path.

    Each way of merging keeps its colour in every panel, each end its dashes.
    """
    points = [point for point in record["points"] if point["t"] is not None]
    if not points:
        return None
    methods = list(dict.fromkeys(point["method"] for point in points))
    panels = _score_panels(points, methods) + _similarity_panels(points, methods, similar_to(record))
    if not panels:
        return None
    first, second = short_names(record["models"])
    return LineChart("path", f"From {first} (t = 0) to {second} (t = 1)", "t", panels)


def _score_panels(points: list[dict[str, Any]], methods: list[str]) -> list[Panel]:
    scored = {
        (task, entry["main_metric"]) for point in points for task, entry in point.get("scores", {}).items()
    }
    shown = [(task, metric) for task, metric in sorted(scored)]
    # Of number sequences the agreement of KMeans with the families too: silhouettes alone hide a split.
    shown += [(task, "ari") for task, metric in shown if metric == "silhouette_true"]
    panels = []
    for task, metric in shown:
        lines = []
        for colour, method in enumerate(methods):
            values = {
                point["t"]: point.get("scores", {}).get(task, {}).get(metric)
                for point in points
                if point["method"] == method
            }
            lines.append(Line(method, list(values), list(values.values()), colour, 0))
        panels.append(Panel(f"{task}/{metric}", f"{task}: {metric}", lines))
    return panels


def _similarity_panels(points: list[dict[str, Any]], methods: list[str], ends: list[str]) -> list[Panel]:
    panels = []
    for metric in SIMILARITIES:
        lines = []
        for colour, method in enumerate(methods):
            for style, (end, name) in enumerate(zip(ends, short_names(ends), strict=True)):
                values = {
                    point["t"]: point.get("similarity", {}).get(end, {}).get(metric, [None])[0]
                    for point in points
                    if point["method"] == method
                }
                lines.append(Line(f"{method}, to {name}", list(values), list(values.values()), colour, style))
        if any(value is not None for line in lines for value in line.y):
            panels.append(Panel(metric, axis_label(metric), lines))
    return panels


def _page(record: dict[str, Any], body: str, picture: bytes | None) -> str:
    style = (resources.files("reasoning_embedding.reports") / "template" / "page.css").read_text(
        encoding="utf-8"
    )
    title = html.escape(f"Merge: {record['name']}")
    notes = [text for point in record["points"][:1] for text in point["warnings"]]
    notes += [f"failed: {text}" for text in record["failed"]]
    shown = "".join(f"<li>{html.escape(text)}</li>" for text in notes)
    figure = ""
    if picture:
        data = base64.b64encode(picture).decode("ascii")
        figure = f'<figure><img alt="scores and similarity by t" src="data:image/png;base64,{data}"></figure>'
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">'
        f"<title>{title}</title><style>{style}</style></head><body><header><h1>{title}</h1>"
        f"<p>{html.escape(' and '.join(record['models']))}</p></header><main>{figure}{body}"
        f"{f'<ul>{shown}</ul>' if shown else ''}</main></body></html>\n"
    )
