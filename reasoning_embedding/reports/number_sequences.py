"""Number sequences in a report: scores beside baselines and published ones, and the points of the figure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

from .grid import Cell, Column, Grid
from .labels import number
from .records import Experiment, Scores

#: Tables of number sequences have keys that begin with it.
SEQUENCES_KEY = "sequences-"
_METRICS = ("silhouette_true", "davies_bouldin_true", "silhouette_kmeans", "davies_bouldin_kmeans", "ari")
_COLUMNS = (
    Column("embeddings"),
    Column("silhouette", "true families"),
    Column("Davies-Bouldin", "true families"),
    Column("silhouette", "KMeans clusters"),
    Column("Davies-Bouldin", "KMeans clusters"),
    Column("ARI with families", "KMeans clusters"),
    Column("p of the silhouette", "random directions"),
)
_BASELINES = {
    "tfidf": "TF-IDF of characters",
    "digit_histogram": "digit histogram",
    "random": "random vectors",
    "hand_made": "hand-made arithmetic features",
}


@dataclass(frozen=True)
class PointPlot:
    """One model's projection to the plane.

    Parameters
    ----------
    heading : str
        Over the whole figure.
    title, note : str
        Over this panel.
    families : tuple of str
        Names.
    points : tuple of tuple of (float, float)
        Of each family, its texts in the order of the chunks; t-SNE's axes have no unit.
    """

    heading: str
    title: str
    note: str
    families: tuple[str, ...]
    points: tuple[tuple[tuple[float, float], ...], ...]


def sequence_tables(experiment: Experiment) -> list[Grid]:
    """One table a task: runs before and after training, baselines, and published models where texts are equal."""
    return [_table(task, list(_entries(experiment, task))) for task in _tasks(experiment)]


def sequence_plots(experiment: Experiment) -> dict[str, list[PointPlot]]:
    """Panels of the figure of each task, in the order of its table."""
    return {
        task: [_plot(task, name, note, entry) for name, note, entry in _entries(experiment, task)]
        for task in _tasks(experiment)
    }


def published() -> dict[str, Any]:
    """Published scores of the standard texts: ``source``, ``metrics``, ``models`` (name -> values in their order)."""
    file = resources.files("reasoning_embedding.evaluation") / "published" / "number_sequences.json"
    return json.loads(file.read_text(encoding="utf-8"))


def _scored(experiment: Experiment) -> Iterator[tuple[str, str, Scores]]:
    for run in experiment.runs:
        for scores in (run.first, run.last):
            if scores:
                yield run.name, f"step {scores.step}", scores
    for name, scores in experiment.baselines.items():
        yield name, "baseline", scores


def _tasks(experiment: Experiment) -> list[str]:
    return list(dict.fromkeys(task for _, _, scores in _scored(experiment) for task in scores.sequences))


def _entries(experiment: Experiment, task: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, note, scores in _scored(experiment):
        if entry := scores.sequences.get(task):
            yield name, note, entry


def _table(task: str, entries: list[tuple[str, str, dict[str, Any]]]) -> Grid:
    rows = [_row(name, note, entry) for name, note, entry in entries]
    models = len(rows)
    first = entries[0][2]
    for key, label in _BASELINES.items():
        if values := first["baselines"].get(key):
            spread = f"sd {number(values['sd'], 4)}" if "sd" in values else ""
            rows.append(_row(label, "no model", values, spread))
    if first["standard"]:
        table = published()
        for name, values in table["models"].items():
            rows.append(_row(name, "published", dict(zip(table["metrics"], values, strict=True))))
    return Grid(
        key=f"{SEQUENCES_KEY}{task}",
        title=f"Number sequences: {task}",
        caption=f"{first['texts']} texts of {len(first['tsne']['families'])} families of numbers. A larger "
        "silhouette and a smaller Davies-Bouldin index are tighter clusters; ARI is 1 where KMeans finds the "
        "families and about 0 by chance. p: share of random directions whose silhouette is as high. So few texts "
        "make noisy scores: a model above TF-IDF and digits alone is the least to ask for.",
        columns=_COLUMNS,
        rows=tuple(rows),
        reference_rows=frozenset(range(models, len(rows))),
    )


def _row(name: str, note: str, values: dict[str, Any], spread: str = "") -> tuple[Cell, ...]:
    cells = [Cell(number(values.get(metric), 4)) for metric in _METRICS]
    if spread:
        cells[0] = Cell(cells[0].text, spread)
    return Cell(name, note), *cells, Cell(number((values.get("null") or {}).get("p_value"), 3))


def _plot(task: str, name: str, note: str, entry: dict[str, Any]) -> PointPlot:
    projection = entry["tsne"]
    labelled = list(zip(projection["labels"], projection["points"], strict=True))
    families = tuple(projection["families"])
    return PointPlot(
        heading=f"t-SNE of {task}: {entry['texts']} texts, perplexity {projection['perplexity']:.3g}",
        title=f"{name} · {note}",
        note=f"silhouette {number(entry['silhouette_true'])}, ARI {number(entry['ari'], 2)}",
        families=families,
        points=tuple(
            tuple((float(x), float(y)) for label, (x, y) in labelled if label == index)
            for index in range(len(families))
        ),
    )
