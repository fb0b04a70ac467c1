"""Intervals over texts of the metrics of one pair of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.measure import Measured
from reasoning_embedding.hrsa.metrics.distances import gulp, procrustes_distance
from reasoning_embedding.hrsa.metrics.layer import Layer
from reasoning_embedding.hrsa.metrics.neighbours_and_cka import debiased_linear_cka
from reasoning_embedding.hrsa.metrics.permutation import permutation_match
from reasoning_embedding.hrsa.metrics.procrustes import Procrustes, h_inv_floor, orthogonal_procrustes
from reasoning_embedding.hrsa.metrics.result import Interval, Metric

from .kernel_intervals import kernel_intervals
from .resampling import bootstrap_mean, bootstrap_similarity, interval, resampled_counts
from .with_inference import with_inference

#: A replicate of a metric that is computed anew costs n D^2 and D^3; wider models go without.
WIDEST = 512
#: Metrics that are computed anew, which the sums and row values below do not give.
_ANEW: dict[str, Callable[..., Metric]] = {
    "permutation_match": permutation_match,
    "h_inv": orthogonal_procrustes,
    "cka_debiased": debiased_linear_cka,
    "procrustes_distance": procrustes_distance,
    "gulp": gulp,
}


def quick_intervals(
    a: Layer, b: Layer, documents: np.ndarray, found: Measured, seed: int
) -> dict[str, Interval]:
    """Intervals that cost about as much as the metrics: from sums a document, or from a value a row.

    Parameters
    ----------
    a, b : Layer
        The same rows in two models.
    documents : array of int, shape (n,), ascending
        The text of each row; texts are resampled whole.
    found : Measured
        The metrics of the pair.
    seed : int
        Of the resampling.
    """
    made: dict[str, Interval] = {}
    if "cka" in found.metrics:
        made |= bootstrap_similarity(a, b, documents, seed=seed)
    if found.procrustes is not None:
        fit = found.procrustes
        made["procrustes_cosine"] = bootstrap_mean(fit.row_cosines, documents[fit.heldout], seed=seed)
        made["procrustes_residual"] = _residual(a, b, documents, fit, seed)
    for k, overlap in found.overlaps.items():
        jaccard, of = overlap.per_row, documents[overlap.rows]
        made[f"knn_jaccard@{k}"] = bootstrap_mean(jaccard, of, seed=seed)
        made[f"knn_mutual@{k}"] = bootstrap_mean(2 * jaccard / (1 + jaccard), of, seed=seed)
    return made


def recomputed_intervals(
    a: Layer, b: Layer, documents: np.ndarray, found: Measured, settings: config.Measuring
) -> tuple[dict[str, Interval], list[str]]:
    """Intervals of metrics that must be computed anew for every replicate, and why any of them is missing.

    Parameters
    ----------
    a, b, documents, found
        As for :func:`quick_intervals`.
    settings : config.Measuring
        Replicates (``bootstrap``), held-out share, seed.

    Notes
    -----
    Where `found` holds values over more rows than `a` and `b` keep, the intervals are moved onto them.
    """
    if not settings.bootstrap:
        return {}, []
    made, said = kernel_intervals(a, b, documents, found, settings)
    names = [name for name in _ANEW if name in found.metrics]
    if (width := max(a.width, b.width)) > WIDEST:
        return made, [*said, f"{', '.join(names)}: no interval, {width} dimensions are more than {WIDEST}"]
    for name in names:
        options: dict[str, Any] = {"heldout": settings.heldout} if name == "h_inv" else {}
        try:
            metric = with_inference(
                _ANEW[name],
                a.rows,
                b.rows,
                documents=documents,
                null=0,
                bootstrap=settings.bootstrap,
                seed=settings.seed,
                **options,
            )
        except InputError as error:
            said.append(f"{name}: no interval, {error.what}")
            continue
        assert metric.interval is not None
        made[name] = _moved(metric.interval, found.metrics[name].value - metric.value)
    if "h_inv" in made and "h_inv_rescaled" in found.metrics:
        floor = h_inv_floor(a.width)
        low, high = ((end - floor) / (1 - floor) for end in (made["h_inv"].low, made["h_inv"].high))
        made["h_inv_rescaled"] = Interval(low, high, made["h_inv"].level)
    return made, said


def _residual(a: Layer, b: Layer, documents: np.ndarray, fit: Procrustes, seed: int) -> Interval:
    """Interval of a ratio of sums over held-out rows; the map stays as it was fitted."""
    held = np.zeros(len(a), dtype=bool)
    held[fit.heldout] = True
    fitted = ~held if not held.all() else held
    x, y = (
        side.rows[held].astype(np.float64) - side.rows[fitted].mean(axis=0, dtype=np.float64)
        for side in (a, b)
    )
    names, codes = np.unique(documents[held], return_inverse=True)
    gaps, squares = (np.bincount(codes, weights=np.square(rows).sum(axis=1)) for rows in (x @ fit.map - y, y))
    counts = resampled_counts(len(names), 200, seed)
    return interval(fit.residual, (counts @ gaps) / (counts @ squares))


def _moved(found: Interval, by: float) -> Interval:
    return Interval(found.low + by, found.high + by, found.level)
