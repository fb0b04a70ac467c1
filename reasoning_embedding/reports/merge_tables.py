"""Tables of a merge: its tensors, and its points with scores and similarities."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json

from .grid import Cell, Column, Grid
from .labels import number

#: Above this many tensors, those of all layers share a row.
MOST_ROWS = 80
#: Similarities of the table of a path, under names short enough for it.
SIMILARITIES = {"cka": "CKA", "knn_jaccard@10": "kNN@10", "dimension_correlation": "dim. corr."}
_LAYER = re.compile(r"\.\d+\.")


def read_merge(folder: Path) -> dict[str, Any]:
    """Read ``merge.json`` of a merge's folder.

    Raises
    ------
    InputError
        If there is none, or it is damaged.
    """
    return _read(RunFolder(folder).merge)


def tensor_grid(folder: Path, record: dict[str, Any]) -> Grid:
    """Cosine, norms and angle of every tensor, of the first merge of a folder.

    A path's merges are all of the same two models, so one table holds for all of them. Many tensors are shown by
    their place in a layer, all layers in one row.
    """
    point = record["points"][0]
    tensors = _read(folder / point["tensors"])["tensors"]
    whole = len(tensors) <= MOST_ROWS
    groups: dict[str, list[dict[str, Any]]] = {}
    for tensor in tensors:
        groups.setdefault(tensor["name"] if whole else _LAYER.sub(".*.", tensor["name"]), []).append(tensor)
    scheduled = len({tensor.get("t") for tensor in tensors}) > 1
    rows = [{"tensor": Cell(name), **_tensor_cells(group, scheduled)} for name, group in groups.items()]
    two = len(tensors[0]["norms"]) == 2
    caption = (
        "Angle in degrees; change: what of the other is orthogonal to the first, over the norm of the first. "
        "Below 3.2 % (cosine above 0.9995) SLERP is LERP."
    )
    if not (whole and two):
        caption += (
            " Rows of several tensors or models show the least cosine and the largest angle and change."
        )
    return Grid(
        key="tensors",
        title=f"Tensors of the models, the first against the {'second' if two else 'others'}",
        caption=caption + _lerp_share(point),
        columns=tuple(Column(label) for label in rows[0]),
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
        back = sum(tensor["lerp"] for tensor in group)
        cells["LERP"] = Cell(("yes" if back else "no") if len(group) == 1 else f"{back} of {len(group)}")
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
    tasks = list(dict.fromkeys(task for point in record["points"] for task in point.get("scores", {})))
    ends = dict(zip(similar_to(record), short_names(similar_to(record)), strict=True))
    columns = [Column("merge"), *(Column(_metric(record, task), task) for task in tasks)]
    columns += [Column(label, f"to {name}") for name in ends.values() for label in SIMILARITIES.values()]
    rows = []
    for point in record["points"]:
        scores = [point.get("scores", {}).get(task, {}).get("main_score") for task in tasks]
        cells = [Cell(number(score, 4)) for score in scores]
        for end in ends:
            found = point.get("similarity", {}).get(end, {})
            cells += [_similarity(found.get(metric)) for metric in SIMILARITIES]
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
    return Cell(number(value), "" if low is None else f"[{number(low)}, {number(high)}]")


def _metric(record: dict[str, Any], task: str) -> str:
    entries = [point["scores"][task] for point in record["points"] if task in point.get("scores", {})]
    name = entries[0]["main_metric"] if entries else "score"
    return {"ndcg_at_10": "nDCG@10", "silhouette_true": "silhouette"}.get(name, name)


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


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, todo="merge again")
    except FileNotFoundError as error:
        raise InputError("no merge here", where=str(path), todo="rembed merge CONFIG makes one") from error
