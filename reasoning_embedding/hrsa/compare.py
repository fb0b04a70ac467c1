"""Two checkpoints compared at every level: the record of a pair."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.errors import InputError

from .activations import FINAL
from .function import linear_probe_transfer
from .geometry import cka_of, knn_overlap_of
from .inference import bootstrap_mean, bootstrap_similarity
from .layer import frobenius_square
from .levels import KnnRows, Measured, finite, knn_rows, measure, merged_warnings, metric_names
from .probes import ProbeSet, load_probe
from .representation import correlation_of
from .side import Side, limited_threads, open_side
from .spectrum import alpha_req, rankme

Report = Callable[[str], None]


def compare(
    name: str,
    a: Path,
    b: Path,
    analysis: config.Analysis,
    *,
    reference_a: str,
    reference_b: str,
    bidirectional_a: bool | None = None,
    bidirectional_b: bool | None = None,
    report: Report = print,
) -> dict[str, Any]:
    """Compare two checkpoints on a probe set.

    Parameters
    ----------
    name : str
        The pair's name.
    a, b : Path
        Checkpoint folders.
    analysis : config.Analysis
        Probe set, token rule, neighbourhoods, bounds.
    reference_a, reference_b : str
        What the user calls them.
    bidirectional_a, bidirectional_b : bool or None
        How to attend; None = as saved.
    report : callable
        Told what is going on, one line at a time.

    Returns
    -------
    dict
        Ready for JSON (no NaN; None where a metric does not exist, the reason in ``warnings``): both sides,
        probe, heat maps over all pairs of layers, metrics along the diagonal and at the final norm with
        intervals, chance levels and definitions, probe transfer and spectra.

    Raises
    ------
    InputError
        If a checkpoint or the probe set cannot be used, or the tokenizers differ where rows are tokens.
    """
    probe = load_probe(analysis.probe)
    with limited_threads(analysis.threads):
        report(f"{name}: {reference_a} on {len(probe.texts)} texts")
        first = open_side(a, reference_a, probe, analysis, bidirectional=bidirectional_a)
        report(f"{name}: {reference_b} on the same {len(first.sample)} rows")
        second = open_side(b, reference_b, probe, analysis, bidirectional=bidirectional_b, like=first)
        record = _record(name, first, second, probe, analysis)
    metrics = ("dimension_correlation", "cka", f"knn_jaccard@{_shown_k(analysis)}")
    values = ((metric, record["last"][metric]) for metric in metrics)
    report(f"{name}: " + ", ".join(f"{metric} {value:.3f}" for metric, value in values if value is not None))
    return record


def _record(
    name: str, first: Side, second: Side, probe: ProbeSet, analysis: config.Analysis
) -> dict[str, Any]:
    rows = knn_rows(first, second, analysis.seed)
    pairs = matched_layers(first, second)
    along = [
        measure(first.layers[i], second.layers[j], rows.of(i, j), first.sample.documents, analysis)
        for i, j in pairs
    ]
    last = along[-1]
    labels_a, labels_b = first.activations.layers, second.activations.layers
    warnings = [
        (labels_a[i], text) for (i, _), pair in zip(pairs, along, strict=True) for text in pair.warnings
    ]
    warnings += pair_warnings(first, second)
    transfer = _probe_transfer(first, second, probe, warnings)
    return {
        "name": name,
        "a": first.describe(),
        "b": second.describe(),
        "probe": describe_probe(probe, first, rows),
        "layers": labels_a,
        "layers_a": labels_a,
        "layers_b": labels_b,
        "heatmaps": _heat_maps(first, second, rows, _shown_k(analysis)),
        "diagonal_layers": [[labels_a[i], labels_b[j]] for i, j in pairs],
        "diagonal": {
            metric: [finite(pair.metrics.get(metric)) for pair in along]
            for metric in metric_names(analysis.k)
        },
        "last": {metric: finite(last.metrics.get(metric)) for metric in metric_names(analysis.k)},
        "intervals": _intervals(first, second, last, analysis),
        "chance": chance_levels(last),
        "definitions": {metric: found.definition for metric, found in last.metrics.items()},
        "probe_transfer": transfer,
        "spectrum": {"a": spectrum(first, "last", warnings), "b": spectrum(second, "last", warnings)},
        "spectrum_mean": {"a": spectrum(first, "mean", warnings), "b": spectrum(second, "mean", warnings)},
        "warnings": merged_warnings(warnings),
    }


def matched_layers(a: Side, b: Side) -> list[tuple[int, int]]:
    """Pairs of layers of equal relative depth: embedding with embedding, final norm with final norm."""
    deep_a, deep_b = len(a.layers) - 2, len(b.layers) - 2
    return [*((i, round(i * deep_b / deep_a)) for i in range(deep_a + 1)), (deep_a + 1, deep_b + 1)]


def pair_warnings(a: Side, b: Side) -> list[tuple[str, str]]:
    """What the two sides do not share, as (place, warning)."""
    found = []
    if a.width != b.width:
        text = f"{a.width} against {b.width} dimensions: metrics that match dimensions are left out"
        found.append(("all layers", text))
    if len(a.layers) != len(b.layers):
        text = f"{len(a.layers) - 2} against {len(b.layers) - 2} layers: layers are matched by relative depth"
        found.append(("diagonal", text))
    if a.activations.causal != b.activations.causal:
        text = (
            "one model attends causally, the other in both directions: part of the change is the attention's"
        )
        found.append(("attention", text))
    if a.tokens != b.tokens:
        found.append(("tokens", "the tokenizers differ; means over texts are compared"))
    return found


def describe_probe(probe: ProbeSet, side: Side, rows: KnnRows) -> dict[str, Any]:
    """What the results file says of the probe set and of the rows kept."""
    return {
        "kind": probe.kind,
        "hash": probe.hash,
        "texts": len(probe.texts),
        "rows": len(side.sample),
        "tokens": side.sample.tokens,
        "labels": probe.classes,
        "knn_rows": len(rows.context),
        "knn_rows_embedding": len(rows.embedding),
        "distinct_rows": rows.distinct,
    }


def _shown_k(analysis: config.Analysis) -> int:
    """Neighbourhood of the heat map: the field's usual 10, else the smallest asked for."""
    return 10 if 10 in analysis.k else min(analysis.k)


def _heat_maps(a: Side, b: Side, rows: KnnRows, k: int) -> dict[str, list[list[float | None]] | None]:
    """Every layer of one model against every layer of the other; work of one layer is done once."""
    same_width = a.width == b.width
    names = ["dimension_correlation", "cka", f"knn_jaccard@{k}"]
    maps: dict[str, list[list[float | None]]] = {name: [[] for _ in a.layers] for name in names}
    for i, x in enumerate(a.layers):
        for j, y in enumerate(b.layers):
            cross = x.cross(y)
            cell = Measured()
            if same_width:
                diagonal = np.diagonal(cross).astype(np.float64)
                cell.add(lambda x=x, y=y, d=diagonal: {names[0]: correlation_of(x, y, d)})
            square = frobenius_square(cross)
            cell.add(lambda x=x, y=y, s=square: {names[1]: cka_of(x, y, s)})
            distinct = rows.of(i, j)
            cell.add(lambda x=x, y=y, r=distinct: {names[2]: knn_overlap_of(x, y, r, k)})
            for name in names:
                maps[name][i].append(finite(cell.metrics.get(name), 5))
    return {name: None if name == names[0] and not same_width else maps[name] for name in names}


def _intervals(a: Side, b: Side, last: Measured, analysis: config.Analysis) -> dict[str, list[float]]:
    """95 % bootstrap intervals over texts, at the final norm."""
    documents, seed = a.sample.documents, analysis.seed
    found = {}
    if "cka" in last.metrics:
        found |= bootstrap_similarity(a.layers[-1], b.layers[-1], documents, seed=seed)
    if last.procrustes is not None:
        fit = last.procrustes
        found["procrustes_cosine"] = bootstrap_mean(fit.row_cosines, documents[fit.heldout], seed=seed)
    for k, overlap in last.overlaps.items():
        found[f"knn_jaccard@{k}"] = bootstrap_mean(overlap.per_row, documents[overlap.rows], seed=seed)
    return {metric: [round(i.low, 6), round(i.high, 6)] for metric, i in found.items()}


def chance_levels(measured: Measured) -> dict[str, float]:
    """What unrelated rows would give, for each metric that has such a level."""
    return {name: round(m.chance, 6) for name, m in measured.metrics.items() if m.chance is not None}


def _probe_transfer(
    a: Side, b: Side, probe: ProbeSet, warnings: list[tuple[str, str]]
) -> dict[str, Any] | None:
    if probe.labels is None or a.width != b.width:
        return None
    try:
        there = linear_probe_transfer(a.activations.mean, b.activations.mean, probe.labels)
        back = linear_probe_transfer(b.activations.mean, a.activations.mean, probe.labels)
    except InputError as error:
        warnings.append(("probe transfer", error.what))
        return None
    warnings += [("probe transfer", text) for text in there.warnings]
    return {
        "classes": there.classes,
        "n": there.n,
        "features": f"mean, {FINAL}",
        "own_a": there.own,
        "own_b": back.own,
        "a_to_b": there.value,
        "b_to_a": back.value,
        "gap_ab": there.gap,
        "gap_ba": back.gap,
        "chance": there.chance,
        "permuted_control": there.permuted,
        "definition": there.definition,
    }


def spectrum(side: Side, features: str, warnings: list[tuple[str, str]]) -> dict[str, Any]:
    """RankMe and alpha-ReQ of the final-norm features of every text: ``last`` token or ``mean``."""
    rows = side.activations.last if features == "last" else side.activations.mean
    place = f"spectrum of {side.reference} ({features})"
    found: dict[str, Any] = {"n": len(rows), "features": features}
    for key, variant in (("rankme_sigma", "sigma"), ("rankme_lambda", "lambda")):
        found[key] = None
        try:
            found[key] = round(rankme(rows, variant).value, 4)
        except InputError as error:
            warnings.append((place, error.what))
    found |= {"alpha": None, "alpha_r2": None, "alpha_range": None}
    try:
        decay = alpha_req(rows)
    except InputError as error:
        warnings.append((place, error.what))
        return found
    warnings += [(place, text) for text in decay.warnings]
    return found | {
        "alpha": round(decay.value, 5),
        "alpha_r2": round(decay.r2, 5),
        "alpha_range": list(decay.ranks),
    }
