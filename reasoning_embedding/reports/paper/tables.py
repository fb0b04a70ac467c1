"""The tables of a paper on reasoning backbones: H_inv, k-NN overlap and probes, before and after training."""

from __future__ import annotations

from typing import Any

from reasoning_embedding.reports.grid import Cell, Grid, TableColumn, named_columns
from reasoning_embedding.reports.hrsa_tables import hrsa_cell
from reasoning_embedding.reports.labels import LEVELS, brackets, metric_label, number, signed
from reasoning_embedding.reports.records import AnalysedPair, Experiment
from reasoning_embedding.reports.resources import published

from .backbones import BackbonePair, accuracies, backbone_pairs, pair_change

_KS = (5, 10, 50)
_WHEN = ("before CL", "after CL")


def paper_tables(experiment: Experiment) -> list[Grid]:
    """Every table the experiment has pairs of backbones for."""
    pairs = backbone_pairs(experiment)
    if not pairs:
        return []
    return [
        entropy_table(experiment, pairs),
        neighbour_table(experiment, pairs),
        level_table(experiment, pairs),
        *([probes] if (probes := probe_table(pairs)).rows else []),
    ]


def entropy_table(experiment: Experiment, pairs: list[BackbonePair]) -> Grid:
    """H_inv of each pair of backbones before and after contrastive training, beside the published ones."""
    table = published("hrsa")
    rows = []
    for pair in pairs:
        sides = (pair.before, pair.after)
        rows.append(
            (
                Cell(pair.name),
                *(_cell(experiment, side, "h_inv") for side in sides),
                _change(pair, "h_inv"),
                *(_cell(experiment, side, "h_inv_rescaled") for side in sides),
            )
        )
    own = len(rows)
    for row in table["h_inv"]:
        values = row["before"], row["after"]
        rows.append(
            (
                Cell(_published_name(row), f"published, {table['source']}"),
                *(Cell(number(value, 4)) for value in values),
                Cell(signed(values[1] - values[0], 4)),
                Cell("–"),
                Cell("–"),
            )
        )
    return Grid(
        key="h-inv",
        title="Inverse row entropy of the Procrustes map (H_inv), final norm",
        caption="1: the two models use the same axes up to order and sign; chance: H_inv of a random basis, its floor. "
        f"{_reading(experiment)} Published values are of other models and of {table['probe']}, and come "
        "without intervals.",
        columns=(
            TableColumn("pair"),
            *(TableColumn(side, "H_inv") for side in _WHEN),
            TableColumn("change", "H_inv"),
            *(TableColumn(side, "above its floor") for side in _WHEN),
        ),
        rows=tuple(rows),
        reference_rows=frozenset(range(own, len(rows))),
    )


def neighbour_table(experiment: Experiment, pairs: list[BackbonePair]) -> Grid:
    """k-NN overlaps at k = 5, 10, 50 before and after contrastive training, beside the published ones."""
    table = published("hrsa")
    rows = [
        (
            Cell(pair.name),
            *(_cell(experiment, side, f"knn_jaccard@{k}") for k in _KS for side in (pair.before, pair.after)),
        )
        for pair in pairs
    ]
    own = len(rows)
    rows += [
        (
            Cell(_published_name(row), f"published, {table['source']}"),
            *(Cell(number(row[side][str(k)])) for k in _KS for side in ("before", "after")),
        )
        for row in table["knn"]
    ]
    return Grid(
        key="knn",
        title="k-NN overlap (Jaccard of cosine neighbours)",
        caption=f"Ours at the final norm. {_reading(experiment)} Published values are means over layers, of other models "
        f"and of {table['probe']}, without intervals.",
        columns=(TableColumn("pair"), *(TableColumn(side, f"k = {k}") for k in _KS for side in _WHEN)),
        rows=tuple(rows),
        reference_rows=frozenset(range(own, len(rows))),
    )


def level_table(experiment: Experiment, pairs: list[BackbonePair]) -> Grid:
    """Every headline metric of every pair of backbones: before, after, change and place to the seed band."""
    rows = []
    for pair in pairs:
        for level, metrics in LEVELS.items():
            for metric in metrics:
                if any(side.last.get(metric) is not None for _, side in pair.analysed):
                    cells = (_cell(experiment, side, metric) for side in (pair.before, pair.after))
                    title = metric_label(metric).title
                    rows.append((Cell(pair.name), Cell(level), Cell(title), *cells, _change(pair, metric)))
    return Grid(
        key="levels",
        title="Two backbones before and after contrastive training, level by level",
        caption=f"At the final norm. {_reading(experiment)}",
        columns=named_columns("pair", "level", "metric", *_WHEN, "change"),
        rows=tuple(rows),
    )


def probe_table(pairs: list[BackbonePair]) -> Grid:
    """Linear probes of every pair: own and transferred accuracy, shuffled labels, chance."""
    rows = []
    labels: dict[str, str] = {}
    for pair in pairs:
        for words, side in pair.analysed:
            found = {accuracy.key: accuracy for accuracy in accuracies(side.probe_transfer)}
            if found and side.probe_transfer:
                labels |= {key: accuracy.label for key, accuracy in found.items()}
                cells = [Cell(number(a.value), brackets(a.bounds)) for a in found.values()]
                controls = [
                    Cell(number(side.probe_transfer.get(key))) for key in ("permuted_control", "chance")
                ]
                rows.append((Cell(pair.name, words), *cells, *controls, Cell(str(side.probe_transfer["n"]))))
    return Grid(
        key="probes",
        title="Linear probes carried to the other model (function)",
        caption="Accuracy on the test texts with its 95 % Wilson interval. A is the base, B the variant. Shuffled labels: "
        "own accuracy of a probe fitted on permuted labels; chance: share of the largest class.",
        columns=named_columns("pair", *labels.values(), "shuffled labels", "chance", "test texts"),
        rows=tuple(rows),
    )


def _cell(experiment: Experiment, pair: AnalysedPair | None, metric: str) -> Cell:
    return Cell("–") if pair is None else hrsa_cell(experiment, pair, metric)


def _change(pair: BackbonePair, metric: str) -> Cell:
    found = pair_change(pair.before, pair.after, metric)
    if found is None:
        return Cell("–")
    return Cell(signed(found.value), brackets(found.bounds, write=signed))


def _published_name(row: dict[str, Any]) -> str:
    return f"{row['base']} → {row['variant']} ({row['kind']})"


def _reading(experiment: Experiment) -> str:
    text = (
        "In brackets 95 % bootstrap intervals over texts; CL: contrastive training; change: after less before, its "
        "interval as if the two were independent."
    )
    if experiment.band is None:
        return text + " No two seeds were compared, so nothing is held against the noise of a seed."
    return text + (
        " Inside, closer, farther, across: where the interval lies to the seed band, "
        f"{experiment.band.description}. It describes two checkpoints."
    )
