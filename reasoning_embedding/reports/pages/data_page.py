"""The page of a data set: tables and histograms in one HTML file without scripts."""

from __future__ import annotations

import html
from collections.abc import Mapping
from importlib import resources
from typing import Any

from reasoning_embedding.reports.grid import Cell, Column, Grid, to_html

_WIDTH, _HEIGHT = 420, 150
#: Margins of a histogram: left for its counts, below for its values.
_LEFT, _BELOW, _ABOVE = 46, 20, 8
_STYLE = """
.histograms { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
.histograms figure { margin: 0; }
.histograms svg { font: 11px system-ui, sans-serif; fill: currentColor; }
.histograms rect { fill: #4477aa; }
.histograms rect:hover { fill: #ee6677; }
.histograms line { stroke: currentColor; stroke-opacity: 0.3; }
"""


def data_page(found: Mapping[str, Any], title: str) -> str:
    """Return the HTML of what :func:`reasoning_embedding.data.quality.statistics.statistics` found.

    Parameters
    ----------
    found : mapping
        The statistics.
    title : str
        Heading of the page.

    Notes
    -----
    Texts of the data are escaped; a content security policy forbids scripts and any request.
    """
    style = (resources.files("reasoning_embedding.reports") / "template" / "page.css").read_text(
        encoding="utf-8"
    )
    parts = [_overview(found), _lengths(found)]
    if found["scores"] is not None:
        parts.append(_scores(found["scores"]))
    parts += [to_html(_suspects(found)), *_examples(found)]
    body = "\n".join(f"<section>{part}</section>" for part in parts)
    subtitle = f"{found['rows']:,} rows, {found['texts']:,} distinct texts, {len(found['sources'])} sources"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{html.escape(title)}</title>\n<style>\n{style}{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{html.escape(title)}</h1><p>{html.escape(subtitle)}</p></header>\n"
        f"<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def histogram(values: Mapping[str, Any], label: str) -> str:
    """Return an SVG of a histogram; each bar says its range and count where the pointer is.

    Parameters
    ----------
    values : mapping
        ``histogram`` with ``edges`` (b + 1) and ``counts`` (b).
    label : str
        What is counted.
    """
    edges, counts = values["histogram"]["edges"], values["histogram"]["counts"]
    low, high, top = edges[0], edges[-1], max(counts) or 1
    inner, base = _WIDTH - _LEFT, _HEIGHT - _BELOW
    span = (high - low) or 1
    bars = []
    for start, end, count in zip(edges[:-1], edges[1:], counts, strict=True):
        x, width = _LEFT + inner * (start - low) / span, inner * (end - start) / span
        height = (base - _ABOVE) * count / top
        bars.append(
            f'<rect x="{x:.1f}" y="{base - height:.1f}" width="{max(width - 0.6, 0.6):.1f}" height="{height:.1f}">'
            f"<title>{_number(start)} to {_number(end)}: {count:,}</title></rect>"
        )
    axis = f'<line x1="{_LEFT}" y1="{base}" x2="{_WIDTH}" y2="{base}"/>'
    texts = (
        f'<text x="{_LEFT}" y="{_HEIGHT - 5}">{_number(low)}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 5}" text-anchor="end">{_number(high)}</text>'
        f'<text x="{_LEFT - 5}" y="{_ABOVE + 9}" text-anchor="end">{top:,}</text>'
    )
    caption = (
        f"{label}: mean {_number(values['mean'])}, median {_number(values['median'])}, n {values['n']:,}"
    )
    return (
        f'<figure><figcaption>{html.escape(caption)}</figcaption><svg width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(caption)}">'
        f"{''.join(bars)}{axis}{texts}</svg></figure>"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _overview(found: Mapping[str, Any]) -> str:
    rows = [(name, count, f"{count / found['rows']:.1%}") for name, count in found["sources"].items()]
    sources = _grid("sources", "Sources", "Rows of each source.", ("source", "rows", "share"), rows)
    counted = {
        **found["duplicates"],
        **{f"skipped: {name}": count for name, count in found["skipped"].items()},
    }
    duplicates = _grid(
        "duplicates",
        "Duplicates",
        "Two texts read the same where they differ in case, white space and punctuation only.",
        ("what", "how many"),
        list(counted.items()),
    )
    return to_html(sources) + to_html(duplicates)


def _lengths(found: Mapping[str, Any]) -> str:
    names = ("mean", "min", "p5", "median", "p95", "max")
    groups = {
        **{f"{found['unit']} of a {role}": values for role, values in found["lengths"].items()},
        **found["counts"],
    }
    rows = [(label, *(_number(values[name]) for name in names)) for label, values in groups.items()]
    grid = _grid("lengths", "Lengths", "Over every use of a text.", ("", *names), rows)
    pictures = "".join(histogram(values, label) for label, values in groups.items())
    return f'{to_html(grid)}<div class="histograms">{pictures}</div>'


def _scores(scores: Mapping[str, Any]) -> str:
    rows = [
        ("negatives with scores", scores["negatives"]),
        ("above 95 % of the lowest positive (likely false negatives)", f"{scores['false_negatives']:.2%}"),
        ("rows with such a negative", scores["rows_with_false_negatives"]),
        ("above the lowest positive", f"{scores['negatives_above_positive']:.2%}"),
    ]
    caption = "Margin: the row's lowest positive minus each of its negatives."
    pictures = "".join(
        histogram(scores[name], f"score: {name}") for name in ("positive", "negative", "margin")
    )
    grid = _grid("scores", "Scores", caption, ("what", "how many"), rows)
    return f'{to_html(grid)}<div class="histograms">{pictures}</div>'


def _suspects(found: Mapping[str, Any]) -> Grid:
    rows = [
        (name, suspect["rows"], f"{suspect['rows'] / found['rows']:.2%}")
        for name, suspect in found["suspects"].items()
    ]
    caption = "Rows whose labels contradict each other or themselves."
    return _grid("suspects", "Suspects of label noise", caption, ("what", "rows", "share"), rows)


def _examples(found: Mapping[str, Any]) -> list[str]:
    groups = {name: suspect["examples"] for name, suspect in found["suspects"].items()}
    if found["scores"] is not None:
        groups["a negative above 95 % of the positive"] = found["scores"]["examples"]
    columns = ("row", "source", "query", "positive", "first negative")
    parts = []
    for name, examples in groups.items():
        rows = [
            (one["row"], one["source"], one["query"], one["positive"], one["negative"] or "–")
            for one in examples
        ]
        if rows:
            grid = _grid("examples", name.capitalize(), "The first rows of this kind.", columns, rows)
            parts.append(f"<details><summary>{html.escape(name)}</summary>{to_html(grid)}</details>")
    return parts


def _grid(key: str, title: str, caption: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Grid:
    cells = tuple(
        tuple(Cell(f"{value:,}" if isinstance(value, int) else str(value)) for value in row) for row in rows
    )
    return Grid(key, title, caption, tuple(Column(name) for name in columns), cells)
