"""Intervals over texts of the metrics of one pair of layers, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.measure import LINEAR, Measured
from reasoning_embedding.hrsa.metrics.cka import gaussian_kernel, unit_layer
from reasoning_embedding.hrsa.metrics.distances import gulp, procrustes_distance
from reasoning_embedding.hrsa.metrics.layer import Layer
from reasoning_embedding.hrsa.metrics.permutation import permutation_match
from reasoning_embedding.hrsa.metrics.procrustes import Procrustes, h_inv_floor, orthogonal_procrustes
from reasoning_embedding.hrsa.metrics.result import Interval, Metric

from .inference import FEWEST, recomputed_interval
from .jackknife import debiased_cka_interval
from .neighbour_halves import cknna_of_halves, knn_of_halves
from .resampling import (
    bootstrap_mean,
    bootstrap_similarity,
    interval,
    interval_of_halves,
    resampled_counts,
)

#: A replicate of a metric that is computed anew costs n D^2 and D^3; wider models go without.
WIDEST = 512
#: Splits of the texts into halves behind the intervals of k-NN overlap.
SPLITS = 60
#: Metrics that are computed anew, which the sums and row values below do not give.
_ANEW: dict[str, Callable[..., Metric]] = {
    "permutation_match": permutation_match,
    "h_inv": orthogonal_procrustes,
    "procrustes_distance": procrustes_distance,
    "gulp": gulp,
}

Intervals = dict[str, Interval]
#: Why a metric has no interval.
Reasons = dict[str, str]


def add_intervals(
    found: Measured,
    a: Layer,
    b: Layer,
    documents: np.ndarray,
    settings: config.Measuring,
    *,
    every: bool,
) -> None:
    """Give the metrics of a pair their intervals, or say of a metric why it has none.

    Parameters
    ----------
    found : Measured
        The metrics of the pair; those with an interval or a reason take the place of the ones without.
    a, b : Layer
        The same rows in two models.
    documents : array of int, shape (n,), ascending
        The text of each row; texts are resampled whole.
    settings : config.Measuring
        Replicates (``bootstrap``), held-out share, seed.
    every : bool
        Whether to make those too that must be computed anew for every replicate; the others cost about as much as the
        metrics, as they come from sums a document or a value a row.

    Notes
    -----
    A metric of running sums over more rows than are kept has no interval: the kept rows tell how far *their* value would
    move, which is another one.
    """
    made, reasons = quick_intervals(found, a, b, documents, settings)
    if every and settings.bootstrap:
        of_kernels, why_not = kernel_intervals(found, a, b, documents, settings)
        recomputed, why = recomputed_intervals(found, a, b, documents, settings)
        made |= of_kernels | recomputed
        reasons |= why_not | why
    for name, metric in found.metrics.items():
        found.metrics[name] = replace(metric, interval=made.get(name), no_interval=reasons.get(name))


def quick_intervals(
    found: Measured, a: Layer, b: Layer, documents: np.ndarray, settings: config.Measuring
) -> tuple[Intervals, Reasons]:
    """Intervals that come from sums a document, or from a value a row; see :func:`add_intervals`."""
    made: Intervals = {}
    reasons: Reasons = {}
    seed, fit = settings.seed, found.procrustes
    if found.summed is not None:
        why = (
            f"the value is of {found.summed:,} rows, of which {len(a):,} are kept to be resampled "
            "(streaming: never keeps all that it uses)"
        )
        reasons = {name: why for name in LINEAR if name in found.metrics and name != "procrustes_cosine"}
    elif "cka" in found.metrics:
        made |= bootstrap_similarity(a, b, documents, seed=seed)
        if "cka_debiased" in found.metrics:
            _try("cka_debiased", made, reasons, lambda: debiased_cka_interval(a, b, documents, seed=seed))
    if "cka_unit" in found.metrics:
        of_unit_rows = partial(debiased_cka_interval, unit_layer(a), unit_layer(b), documents, seed=seed)
        _try("cka_unit", made, reasons, of_unit_rows)
    if fit is not None and len(fit.row_cosines):
        made["procrustes_cosine"] = bootstrap_mean(fit.row_cosines, documents[fit.heldout], seed=seed)
        if found.summed is None:
            made["procrustes_residual"] = _residual(a, b, documents, fit, seed)
    if found.overlaps:
        of_knn, why_not = knn_intervals(found, a, b, documents, seed)
        made |= of_knn
        reasons |= why_not
    return made, reasons


def _try(name: str, made: Intervals, reasons: Reasons, make: Callable[[], Interval]) -> None:
    try:
        made[name] = make()
    except InputError as error:
        reasons[name] = error.what


def knn_intervals(
    found: Measured, a: Layer, b: Layer, documents: np.ndarray, seed: int
) -> tuple[Intervals, Reasons]:
    """Intervals of k-NN overlap, whose neighbours are looked for anew in both halves of random splits of the texts."""
    rows = next(iter(found.overlaps.values())).rows
    names = [f"knn_{form}@{k}" for k in found.overlaps for form in ("jaccard", "mutual")]
    if (count := len(np.unique(documents[rows]))) < FEWEST:
        return {}, dict.fromkeys(names, f"{count} different documents")
    made: Intervals = {}
    for k, shares in knn_of_halves(a, b, rows, documents[rows], list(found.overlaps), SPLITS, seed).items():
        if len(shares) <= SPLITS // 2:
            continue
        for form, values in (("jaccard", shares[:, 0]), ("mutual", shares[:, 1])):
            name = f"knn_{form}@{k}"
            made[name] = interval_of_halves(found.metrics[name].value, values, count)
    undefined = "half of the texts have too few rows for so many neighbours"
    return made, {name: undefined for name in names if name not in made}


def recomputed_intervals(
    found: Measured, a: Layer, b: Layer, documents: np.ndarray, settings: config.Measuring
) -> tuple[Intervals, Reasons]:
    """Intervals of metrics that must be computed anew for every replicate; see :func:`add_intervals`."""
    made: Intervals = {}
    reasons: Reasons = {}
    names = [
        name for name in _ANEW if name in found.metrics and not (found.summed is not None and name in LINEAR)
    ]
    if (width := max(a.width, b.width)) > WIDEST:
        return {}, dict.fromkeys(names, f"{width} dimensions are more than {WIDEST}")
    if found.procrustes is not None and found.procrustes.ceiling < 1 and "h_inv" in names:
        names.remove("h_inv")
        why = "other texts would determine other directions of the map"
        reasons |= {name: why for name in ("h_inv", "h_inv_rescaled") if name in found.metrics}
    for name in names:
        options = {"heldout": settings.heldout, "seed": settings.seed} if name == "h_inv" else {}
        try:
            made[name] = recomputed_interval(
                *(_ANEW[name], a.rows, b.rows, found.metrics[name], documents, options),
                bootstrap=settings.bootstrap,
                seed=settings.seed,
            )
        except InputError as error:
            reasons[name] = error.what
    if "h_inv" in made and "h_inv_rescaled" in found.metrics:
        floor = h_inv_floor(a.width)
        low, high = ((end - floor) / (1 - floor) for end in (made["h_inv"].low, made["h_inv"].high))
        made["h_inv_rescaled"] = Interval(low, high, made["h_inv"].level)
    return made, reasons


def kernel_intervals(
    found: Measured, a: Layer, b: Layer, documents: np.ndarray, settings: config.Measuring
) -> tuple[Intervals, Reasons]:
    """Intervals of RBF CKA and CKNNA, whose kernels are computed once; see :func:`add_intervals`."""
    rows = found.rows
    names = [name for name in found.metrics if name == "cka_rbf" or name.startswith("cknna@")]
    if not names:
        return {}, {}
    if (count := len(np.unique(documents[rows]))) < FEWEST:
        return {}, dict.fromkeys(names, f"{count} different documents")
    made: Intervals = {}
    if (metric := found.metrics.get("cka_rbf")) is not None:
        values = rbf_replicates(
            a.taken(rows), b.taken(rows), documents[rows], settings.bootstrap, settings.seed
        )
        made["cka_rbf"] = interval(metric.value, values)
    ks = [k for k in settings.k if f"cknna@{k}" in found.metrics]
    if ks:
        draws = cknna_of_halves(
            a.rows[rows], b.rows[rows], documents[rows], ks, settings.bootstrap, settings.seed
        )
        for k, values in draws.items():
            if len(values) > settings.bootstrap // 2:
                made[f"cknna@{k}"] = interval_of_halves(found.metrics[f"cknna@{k}"].value, values, count)
    undefined = "most halves of the texts do not define it"
    return made, {name: undefined for name in names if name not in made}


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


def rbf_replicates(a: Layer, b: Layer, documents: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """RBF CKA of resampled documents, shape (replicates,); the kernels' widths stay those of the whole sample.

    Notes
    -----
    With row weights w (how often a row's document was drawn), N their sum and u = Kw, v = Lw:
    ``tr(KHLH) = sum_ij w_i w_j K_ij L_ij - 2 sum_i w_i u_i v_i / N + (w'u)(w'v) / N^2``. Weights are equal within a
    document, so block sums of ``K o L`` and column sums of K and L by document give every replicate: one costs
    rows x documents, none forms a kernel.
    """
    _, starts, sizes = np.unique(documents, return_index=True, return_counts=True)
    draws = resampled_counts(len(starts), replicates, seed).astype(np.float64)
    total = draws @ sizes
    kernels = [gaussian_kernel(layer) for layer in (a, b)]
    sums = [
        np.add.reduceat(kernel, starts, axis=1) @ draws.T for kernel in kernels
    ]  # u and v: (rows, replicates)

    def hsic(i: int, j: int) -> np.ndarray:
        blocks = np.add.reduceat(np.add.reduceat(kernels[i] * kernels[j], starts, axis=0), starts, axis=1)
        by_document = (
            np.add.reduceat(values, starts, axis=0) for values in (sums[i] * sums[j], sums[i], sums[j])
        )
        mixed, first, second = (np.einsum("bd,db->b", draws, values) for values in by_document)
        return np.einsum("bd,bd->b", draws @ blocks, draws) - 2 * mixed / total + first * second / total**2

    return hsic(0, 1) / np.sqrt(hsic(0, 0) * hsic(1, 1))
