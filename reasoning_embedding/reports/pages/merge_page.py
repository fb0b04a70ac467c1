"""The page of a merge: plots along its path, tables, all or nothing."""

from __future__ import annotations

import base64
import html
import importlib.util
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

from reasoning_embedding.errors import SetupError
from reasoning_embedding.files import atomic_folder
from reasoning_embedding.reports.grid import Grid, to_html, to_markdown, to_text
from reasoning_embedding.reports.merge_chart import contrast_grid, path_chart
from reasoning_embedding.reports.merge_tables import point_grid, read_merge, tensor_grid

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
    grids = [*_point_grids(record), tensor_grid(folder, record)]
    with atomic_folder(folder / "report") as target:
        if chart:
            from reasoning_embedding.reports.figures import draw_lines

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
    grids = [tensor_grid(folder, record), *_point_grids(record)]
    return "\n\n".join(f"{to_text(grid, width)}\n{grid.caption}" for grid in grids)


def _point_grids(record: dict[str, Any]) -> list[Grid]:
    """Tables of the merges, where they were scored or analysed."""
    if not any("scores" in point or "similarity" in point for point in record["points"]):
        return []
    chart = path_chart(record)
    contrast = contrast_grid(record, chart) if chart else None
    return [point_grid(record), *([contrast] if contrast else [])]


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
