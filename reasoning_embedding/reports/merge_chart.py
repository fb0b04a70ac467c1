"""A path of merges as curves over t, and how far two ways between the same ends lie apart."""

from __future__ import annotations

from typing import Any

from .charts import Line, LineChart, Panel
from .grid import Cell, Column, Grid
from .labels import metric_label, number
from .merge_tables import SIMILARITIES, short_names, similar_to


def path_chart(record: dict[str, Any]) -> LineChart | None:
    """Scores, clustering and similarity to each end by t; None where there is no path or nothing measured.

    A way of merging keeps its dashes in every panel, and no two lines of a panel share a colour: where two ways
    coincide, the dashed one lies on the other.
    """
    points = [point for point in record["points"] if point["t"] is not None]
    panels = _score_panels(points) + _similarity_panels(points, similar_to(record)) if points else []
    if not panels:
        return None
    first, second = short_names(record["models"])
    return LineChart("path", f"From {first} (t = 0) to {second} (t = 1)", "t", panels)


def contrast_grid(record: dict[str, Any], chart: LineChart) -> Grid | None:
    """Largest distance of other ways from the first, beside that of the ends; None where there is one way."""
    first, *others = _methods(record["points"])
    rows = []
    for panel in chart.panels:
        lines = {line.name: line for line in panel.lines}
        for line in panel.lines:
            if not line.name.startswith(first):
                continue
            subject = line.name.removeprefix(first).removeprefix(", ")
            cells = [Cell(panel.label, subject), Cell(_ends(line))]
            cells += [_apart(line, lines[other + line.name.removeprefix(first)]) for other in others]
            rows.append(tuple(cells))
    if not others:
        return None
    return Grid(
        key="contrast",
        title=f"Distance from {first} along the path",
        caption="Between the same two models: the largest difference along the path and where it is, beside the "
        "difference of the two ends.",
        columns=(Column("quantity"), Column("t = 1 less t = 0"), *(Column(other) for other in others)),
        rows=tuple(rows),
    )


def _ends(line: Line) -> str:
    start, end = line.y[0], line.y[-1]
    return number(None if start is None or end is None else end - start, 4)


def _apart(a: Line, b: Line) -> Cell:
    known = [
        (abs(y - x), t, y - x)
        for x, y, t in zip(a.y, b.y, a.x, strict=True)
        if x is not None and y is not None
    ]
    if not known:
        return Cell("–")
    _, t, difference = max(known)
    return Cell(number(difference, 4), f"at t = {t:g}")


def _methods(points: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(point["method"] for point in points))


def _score_panels(points: list[dict[str, Any]]) -> list[Panel]:
    found = {
        task: entry["main_metric"] for point in points for task, entry in point.get("scores", {}).items()
    }
    panels = []
    for task, main in found.items():
        # Of number sequences the agreement of KMeans with the families too: a silhouette alone hides a split.
        for metric in (main, "ari") if main == "silhouette_true" else (main,):
            lines = [
                _line(
                    method,
                    [
                        (point["t"], point.get("scores", {}).get(task, {}).get(metric))
                        for point in points
                        if point["method"] == method
                    ],
                    index,
                    index,
                )
                for index, method in enumerate(_methods(points))
            ]
            panels.append(Panel(f"{task}/{metric}", f"{task}: {metric}", lines))
    return panels


def _similarity_panels(points: list[dict[str, Any]], ends: list[str]) -> list[Panel]:
    panels, methods = [], _methods(points)
    for metric in SIMILARITIES:
        lines = [
            _line(
                f"{method}, to {name}",
                [
                    (point["t"], point.get("similarity", {}).get(end, {}).get(metric, [None])[0])
                    for point in points
                    if point["method"] == method
                ],
                place * len(methods) + index,
                index,
            )
            for place, (end, name) in enumerate(zip(ends, short_names(ends), strict=True))
            for index, method in enumerate(methods)
        ]
        if any(value is not None for line in lines for value in line.y):
            panels.append(Panel(metric, metric_label(metric).title, lines))
    return panels


def _line(name: str, values: list[tuple[float, float | None]], colour: int, style: int) -> Line:
    return Line(name, [t for t, _ in values], [value for _, value in values], colour, style)
