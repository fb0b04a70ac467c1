"""The page of merges: curves along their path, tables of merges and of tensors, all or nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints.layout import RunFolder
from reasoning_embedding.files import atomic_folder
from reasoning_embedding.reports.charts import Line, LineChart, Panel
from reasoning_embedding.reports.grid import (
    Cell,
    Grid,
    TableColumn,
    named_columns,
    terminal_width,
    to_html,
    to_markdown,
    to_text,
)
from reasoning_embedding.reports.labels import SCORE, SCORE_KEY, SHORT, brackets, metric_label, number
from reasoning_embedding.reports.reading import read_merge, read_merge_tensors
from reasoning_embedding.reports.resources import need
from reasoning_embedding.reports.shell import bullets, require_room, write_page
from reasoning_embedding.reports.svg import line_chart
from reasoning_embedding.secrets import written

FIGURE = "path.png"
#: Above this many tensors, those of all layers share a row.
MOST_ROWS = 80
#: Similarities of the table of a path.
_SIMILARITIES = ("cka", "knn_jaccard@10", "dimension_correlation")
_SCORE_LABELS = {SCORE_KEY: SCORE, "silhouette_true": "silhouette"}
_LAYER = re.compile(r"\.\d+\.")


def build_merge(folder: Path) -> Path:
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
    if chart:
        need("matplotlib", "a report")
    grids = [*_point_grids(record), tensor_grid(folder, record)]
    notes = [text for point in record["points"][:1] for text in point["warnings"]]
    notes += [f"failed: {text}" for text in record["failed"]]
    require_room(RunFolder(folder).report, figures=int(bool(chart)))
    with atomic_folder(RunFolder(folder).report) as target:
        if chart:
            from reasoning_embedding.reports.figures import draw_lines

            draw_lines(chart, target / FIGURE)
        text = "\n".join(to_markdown(grid) for grid in grids)
        (target / "table.md").write_text(written(text), encoding="utf-8")
        body = (line_chart(chart) if chart else "") + "".join(map(to_html, grids)) + bullets(notes)
        write_page(
            target / "index.html", f"Merge: {record['name']}", " and ".join(record["models"]), {"": body}
        )
    return RunFolder(folder).page


def merge_tables(folder: Path) -> str:
    """Tensors and points of a merge as plain text, as wide as the terminal.

    Raises
    ------
    InputError
        If the folder holds no merge.
    """
    record = read_merge(folder)
    grids = [tensor_grid(folder, record), *_point_grids(record)]
    return "\n\n".join(f"{to_text(grid, terminal_width())}\n{grid.caption}" for grid in grids)


def _point_grids(record: dict[str, Any]) -> list[Grid]:
    """Tables of the merges, where they were scored or analysed."""
    if not any("scores" in point or "similarity" in point for point in record["points"]):
        return []
    chart = path_chart(record)
    contrast = contrast_grid(record, chart) if chart else None
    return [point_grid(record), *([contrast] if contrast else [])]


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
    first, *others = _by_method(record["points"])
    if not others:
        return None
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
    return Grid(
        key="contrast",
        title=f"Distance from {first} along the path",
        caption="Between the same two models: the largest difference along the path and where it is, beside the "
        "difference of the two ends.",
        columns=named_columns("quantity", "t = 1 less t = 0", *others),
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


def _by_method(points: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {
        method: [point for point in points if point["method"] == method]
        for method in dict.fromkeys(point["method"] for point in points)
    }


def _score_panels(points: list[dict[str, Any]]) -> list[Panel]:
    panels = []
    for task, main in _main_metrics(points).items():
        # Of number sequences the agreement of KMeans with the families too: a silhouette alone hides a split.
        for metric in (main, "ari") if main == "silhouette_true" else (main,):
            lines = [
                _line(method, own, [_score(point, task, metric) for point in own], index, index)
                for index, (method, own) in enumerate(_by_method(points).items())
            ]
            panels.append(Panel(f"{task}/{metric}", f"{task}: {metric}", lines))
    return panels


def _similarity_panels(points: list[dict[str, Any]], ends: list[str]) -> list[Panel]:
    panels, methods = [], _by_method(points)
    for metric in _SIMILARITIES:
        lines = []
        for end, name in zip(ends, short_names(ends), strict=True):
            for style, (method, own) in enumerate(methods.items()):
                values = [point.get("similarity", {}).get(end, {}).get(metric, [None])[0] for point in own]
                lines.append(_line(f"{method}, to {name}", own, values, len(lines), style))
        if any(value is not None for line in lines for value in line.y):
            panels.append(Panel(metric, metric_label(metric).title, lines))
    return panels


def _line(
    name: str, points: list[dict[str, Any]], values: list[float | None], colour: int, style: int
) -> Line:
    return Line(name, [point["t"] for point in points], values, colour, style)


def _main_metrics(points: list[dict[str, Any]]) -> dict[str, str]:
    """Main metric by task, of all tasks that a merge was scored on."""
    return {task: entry["main_metric"] for point in points for task, entry in point.get("scores", {}).items()}


def _score(point: dict[str, Any], task: str, metric: str) -> float | None:
    return point.get("scores", {}).get(task, {}).get(metric)


def tensor_grid(folder: Path, record: dict[str, Any]) -> Grid:
    """Cosine, norms and angle of every tensor, of the first merge of a folder.

    A path's merges are all of the same two models, so one table holds for all of them. Many tensors are shown by
    their place in a layer, all layers in one row.
    """
    point = record["points"][0]
    tensors = read_merge_tensors(folder, point)
    single = len(tensors) <= MOST_ROWS
    groups: dict[str, list[dict[str, Any]]] = {}
    for tensor in tensors:
        groups.setdefault(tensor["name"] if single else _LAYER.sub(".*.", tensor["name"]), []).append(tensor)
    scheduled = len({tensor.get("t") for tensor in tensors}) > 1
    rows = [{"tensor": Cell(name), **_tensor_cells(group, scheduled)} for name, group in groups.items()]
    two = len(tensors[0]["norms"]) == 2
    caption = (
        "Angle in degrees; change: what of the other is orthogonal to the first, over the norm of the first. "
        "Below 3.2 % (cosine above 0.9995) SLERP is LERP."
    )
    if not (single and two):
        caption += (
            " Rows of several tensors or models show the least cosine and the largest angle and change."
        )
    return Grid(
        key="tensors",
        title=f"Tensors of the models, the first against the {'second' if two else 'others'}",
        caption=caption + _lerp_share(point),
        columns=named_columns(*rows[0]),
        rows=tuple(tuple(row.values()) for row in rows),
    )


def _tensor_cells(group: Sequence[dict[str, Any]], scheduled: bool) -> dict[str, Cell]:
    """One row: a tensor, or those of one place in all layers."""

    def extreme(key: str, choose: Any) -> float | None:
        return choose((value for tensor in group for value in tensor[key] if value is not None), default=None)

    def norm(model: int) -> Cell:
        return Cell(number(math.hypot(*(tensor["norms"][model] for tensor in group))))

    change = extreme("orthogonal_change", max)
    cells = {"params": Cell(f"{sum(tensor['parameters'] for tensor in group):,}"), "norm 1": norm(0)}
    if len(group[0]["norms"]) == 2:
        cells["norm 2"] = norm(1)
    cells |= {
        "cosine": Cell(number(extreme("cosine", min), 6)),
        "angle": Cell(number(extreme("angle", max), 2)),
        "change": Cell("–" if change is None else f"{change:.2%}"),
    }
    if scheduled:
        values = sorted({tensor["t"] for tensor in group})
        cells["t"] = Cell("–".join(f"{value:.3g}" for value in dict.fromkeys((values[0], values[-1]))))
    if "lerp" in group[0]:
        count = sum(tensor["lerp"] for tensor in group)
        cells["LERP"] = Cell(("yes" if count else "no") if len(group) == 1 else f"{count} of {len(group)}")
    return cells


def _lerp_share(point: dict[str, Any]) -> str:
    summary = point["summary"]
    if summary["lerp_tensors"] is None:
        return ""
    return (
        f" It was for {summary['lerp_tensors']:.1%} of {summary['tensors']} tensors, "
        f"{summary['lerp_parameters']:.1%} of {summary['parameters']:,} parameters."
    )


def point_grid(record: dict[str, Any]) -> Grid:
    """Every merge with its scores, and its similarity to each model."""
    tasks = _main_metrics(record["points"])
    ends = dict(zip(similar_to(record), short_names(similar_to(record)), strict=True))
    columns = [TableColumn("merge")]
    columns += [TableColumn(_SCORE_LABELS.get(main, main), task) for task, main in tasks.items()]
    columns += [
        TableColumn(SHORT[metric], f"to {name}") for name in ends.values() for metric in _SIMILARITIES
    ]
    rows = []
    for point in record["points"]:
        cells = [Cell(number(_score(point, task, "main_score"), 4)) for task in tasks]
        for end in ends:
            found = point.get("similarity", {}).get(end, {})
            cells += [_similarity(found.get(metric)) for metric in _SIMILARITIES]
        rows.append((Cell(point["name"]), *cells))
    probe = record.get("probe")
    on = (
        f" Similarity after the final norm, probe set {probe['kind']}, {probe['texts']} texts."
        if probe
        else ""
    )
    return Grid(
        key="points",
        title=f"Merges of {' and '.join(short_names(record['models']))}",
        caption=f"Scores of each merge.{on} In brackets the 95 % interval over texts.",
        columns=tuple(columns),
        rows=tuple(rows),
    )


def _similarity(found: list[float | None] | None) -> Cell:
    if not found:
        return Cell("–")
    value, low, high = found
    return Cell(number(value), brackets(None if low is None or high is None else (low, high)))


def similar_to(record: dict[str, Any]) -> list[str]:
    """Models that the merges were held against."""
    return list(dict.fromkeys(name for point in record["points"] for name in point.get("similarity", {})))


def short_names(references: Sequence[str]) -> list[str]:
    """Names of models without the folders, before and after, that all of them share."""
    parts = [reference.split("/") for reference in references]
    if len(set(references)) < 2:
        return list(references)
    shortest = min(map(len, parts))
    front = next((i for i in range(shortest) if len({part[i] for part in parts}) > 1), 0)
    back = next((i for i in range(shortest - front) if len({part[-1 - i] for part in parts}) > 1), 0)
    return ["/".join(part[front : len(part) - back]) for part in parts]
