"""The one shell of every page: head, style, sections and, where something is explored, scripts beside the page."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reasoning_embedding.files import require_space
from reasoning_embedding.secrets import written

from .grid import Grid, to_html
from .labels import COLOURS, DARK_COLOURS
from .resources import page_part
from .svg import palette_css

#: The library of charts that are explored: one file, beside the pages that need it.
PLOTLY = "plotly.min.js"
_SLOT = re.compile(r"\{\{(\w+)\}\}")
_STILL = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' file: data:"
#: Besides the scripts within it, a page may run the one beside it; it asks for nothing else.
_EXPLORED = f"{_STILL} blob:; script-src 'unsafe-inline' 'self' file:"


def page(
    title: str, subtitle: str, sections: Mapping[str, str], *, explored: Mapping[str, Any] | None = None
) -> str:
    """Return the HTML of a page.

    Parameters
    ----------
    title, subtitle : str
        Escaped here.
    sections : mapping of str to str
        Heading -> HTML; a section without any is left out, and one whose heading is empty has none.
    explored : mapping, optional
        What ``explore.js`` draws from, as JSON values; absent: the page has no script.

    Notes
    -----
    Every text from a file is escaped: in HTML by ``html.escape``, in the data by leaving no ``<`` in it (so it
    cannot close its script element), in charts by the script. A content security policy forbids any request.
    """
    slots = {
        "title": html.escape(title),
        "subtitle": html.escape(subtitle),
        "policy": _EXPLORED if explored else _STILL,
        "style": page_part("page.css") + palette_css(),
        "notices": page_part("notices.html") if explored else "",
        "body": _body(sections),
        "scripts": "",
    }
    if explored:
        data = {"colours": COLOURS, "dark": DARK_COLOURS} | dict(explored)
        text = json.dumps(_rounded(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        scripts = {"data": text.replace("<", "\\u003c"), "plotly": PLOTLY, "script": page_part("explore.js")}
        slots["scripts"] = _filled("explore.html", scripts)
    return _filled("page.html", slots)


def require_room(folder: Path, *, explored: bool = False, figures: int = 0) -> None:
    """Refuse to draw a report that the disk has no room for.

    Parameters
    ----------
    folder : Path
        Where the report goes.
    explored : bool
        Whether the library of what a reader explores, nearly 5 MB, lies beside the page.
    figures : int
        How many figures are drawn, of at most some 300 kB each.

    Raises
    ------
    SetupError
        If fewer bytes are free there.
    """
    require_space(folder, 300_000 * (1 + figures) + 5_000_000 * explored, "the report")


def write_page(
    path: Path,
    title: str,
    subtitle: str,
    sections: Mapping[str, str],
    *,
    explored: Mapping[str, Any] | None = None,
) -> None:
    """Write a page into a folder that is there, and beside it the library of what it lets a reader explore.

    Parameters
    ----------
    path : Path
        The HTML file.
    title, subtitle, sections, explored
        As :func:`page` takes them.
    """
    path.write_text(written(page(title, subtitle, sections, explored=explored)), encoding="utf-8")
    if explored:
        from plotly.offline import get_plotlyjs

        path.with_name(PLOTLY).write_text(get_plotlyjs(), encoding="utf-8")


def _filled(name: str, slots: Mapping[str, str]) -> str:
    return _SLOT.sub(lambda match: slots[match[1]], page_part(name))


def _body(sections: Mapping[str, str]) -> str:
    parts = []
    for title, content in sections.items():
        if content:
            key = re.sub(r"[^a-z]+", "-", title.lower()).strip("-")
            named = f' id="{key}"' if key else ""
            heading = f"<h2>{html.escape(title)}</h2>" if title else ""
            parts.append(f"<section{named}>{heading}{content}</section>")
    return "\n".join(parts)


def _rounded(value: Any) -> Any:
    """Numbers to six digits: more than a page shows, and half the size."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(below) for key, below in value.items()}
    return [_rounded(below) for below in value] if isinstance(value, (list, tuple)) else value


def explored_chart(key: str, title: str, note: str) -> str:
    """The place of a chart that ``explore.js`` draws."""
    return (
        f'<figure class="chart" data-chart="{html.escape(key)}"><figcaption><h3>{html.escape(title)}</h3></figcaption>'
        f'<div class="controls"></div><div class="plot"></div><p class="note">{html.escape(note)}</p></figure>'
    )


def paragraphs(texts: Iterable[str]) -> str:
    """Each text as a paragraph."""
    return "".join(f"<p>{html.escape(text)}</p>" for text in texts)


def bullets(items: Iterable[str]) -> str:
    """A list; empty without items."""
    found = "".join(f"<li>{html.escape(item)}</li>" for item in items)
    return f"<ul>{found}</ul>" if found else ""


def folded(summary: str, content: str) -> str:
    """What opens when its summary is chosen."""
    return f"<details><summary>{html.escape(summary)}</summary>{content}</details>" if content else ""


def folded_table(grid: Grid, summary: str | None = None) -> str:
    """A table that opens when its title is chosen."""
    return folded(grid.title if summary is None else summary, to_html(grid))
