"""The page of a data set: tables and histograms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reasoning_embedding.reports.grid import Cell, Grid, named_columns, to_html
from reasoning_embedding.reports.labels import compact
from reasoning_embedding.reports.shell import folded_table, page
from reasoning_embedding.reports.svg import histogram


def data_page(found: Mapping[str, Any], title: str) -> str:
    """Return the page of what :func:`reasoning_embedding.data.quality.statistics.statistics` found.

    Parameters
    ----------
    found : mapping
        The statistics.
    title : str
        Heading of the page.
    """
    parts = [_overview(found), _lengths(found)]
    if found["scores"] is not None:
        parts.append(_scores(found["scores"]))
    parts += [to_html(_suspects(found)), *_examples(found)]
    subtitle = f"{found['rows']:,} rows, {found['texts']:,} distinct texts, {len(found['sources'])} sources"
    return page(title, subtitle, {"": "\n".join(parts)})


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
    rows = [(label, *(compact(values[name]) for name in names)) for label, values in groups.items()]
    grid = _grid("lengths", "Lengths", "Over every use of a text.", ("", *names), rows)
    pictures = "".join(histogram(values, label) for label, values in groups.items())
    return f'{to_html(grid)}<div class="panels">{pictures}</div>'


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
    return f'{to_html(grid)}<div class="panels">{pictures}</div>'


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
            parts.append(folded_table(grid, name))
    return parts


def _grid(key: str, title: str, caption: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Grid:
    cells = tuple(
        tuple(Cell(f"{value:,}" if isinstance(value, int) else str(value)) for value in row) for row in rows
    )
    return Grid(key, title, caption, named_columns(*columns), cells)
