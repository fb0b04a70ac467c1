"""Intervals over texts of the metrics of one pair of layers, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.measure import LINEAR, Measured
from reasoning_embedding.hrsa.metrics.cka import debiased_linear_cka, gaussian_kernel
from reasoning_embedding.hrsa.metrics.distances import gulp, procrustes_distance
from reasoning_embedding.hrsa.metrics.layer import Layer, largest, products, unit_rows
from reasoning_embedding.hrsa.metrics.neighbours import alignment, neighbour_kernel
from reasoning_embedding.hrsa.metrics.permutation import permutation_match
from reasoning_embedding.hrsa.metrics.procrustes import Procrustes, h_inv_floor, orthogonal_procrustes
from reasoning_embedding.hrsa.metrics.result import Interval, Metric

from .inference import FEWEST, recomputed_interval
from .resampling import bootstrap_mean, bootstrap_similarity, halves, interval, resampled_counts

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
    if fit is not None and len(fit.row_cosines):
        made["procrustes_cosine"] = bootstrap_mean(fit.row_cosines, documents[fit.heldout], seed=seed)
        if found.summed is None:
            made["procrustes_residual"] = _residual(a, b, documents, fit, seed)
    for k, overlap in found.overlaps.items():
        jaccard, of = overlap.per_row, documents[overlap.rows]
        made[f"knn_jaccard@{k}"] = bootstrap_mean(jaccard, of, seed=seed)
        made[f"knn_mutual@{k}"] = bootstrap_mean(2 * jaccard / (1 + jaccard), of, seed=seed)
    return made, reasons


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
    for name in names:
        options = {"heldout": settings.heldout, "seed": settings.seed} if name == "h_inv" else {}
        value = found.metrics[name].value
        try:
            made[name] = recomputed_interval(
                *(_ANEW[name], a.rows, b.rows, value, documents, options),
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
        draws = cknna_replicates(
            a.rows[rows], b.rows[rows], documents[rows], ks, settings.bootstrap, settings.seed
        )
        for k, values in draws.items():
            if len(values) > settings.bootstrap // 2:
                made[f"cknna@{k}"] = interval(found.metrics[f"cknna@{k}"].value, values)
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


def cknna_replicates(
    x: np.ndarray, y: np.ndarray, documents: np.ndarray, ks: list[int], replicates: int, seed: int
) -> dict[int, np.ndarray]:
    """CKNNA by k of random halves of the documents, shape (replicates,) or shorter where it is not defined.

    Notes
    -----
    A row that is drawn twice would be its own nearest neighbour, so halves are drawn without repetition, whose spread
    is that of the whole sample (McCarthy 1969). All cosines are computed once; a replicate sorts those among its rows.
    """
    _, codes = np.unique(documents, return_inverse=True)
    cosines = [products(unit_rows(rows)) for rows in (x, y)]
    for matrix in cosines:
        np.fill_diagonal(matrix, -np.inf)
    found: dict[int, list[float]] = {k: [] for k in ks}
    for rows in halves(codes, replicates, seed):
        reach = min(max(ks), len(rows) - 1)
        near = [largest(matrix[np.ix_(rows, rows)], reach) for matrix in cosines]
        for k in ks:
            kernels = [neighbour_kernel(index[:, :k], values[:, :k]) for index, values in near]
            value = alignment(*kernels) if k <= reach and len(rows) > 3 else None
            if value is not None:
                found[k].append(value)
    return {k: np.array(values) for k, values in found.items()}
