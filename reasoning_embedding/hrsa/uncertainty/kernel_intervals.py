"""Intervals over texts of RBF CKA and CKNNA: documents are resampled within kernels that are computed once."""

from __future__ import annotations

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.hrsa.measure import Measured
from reasoning_embedding.hrsa.metrics.kernels import alignment, gaussian_kernel, neighbour_kernel
from reasoning_embedding.hrsa.metrics.layer import Layer, largest, products, unit_rows
from reasoning_embedding.hrsa.metrics.result import Interval

from .resampling import halves, interval, resampled_counts

#: Fewer documents than this cannot be resampled.
_FEWEST = 4


def kernel_intervals(
    a: Layer, b: Layer, documents: np.ndarray, found: Measured, settings: config.Measuring
) -> tuple[dict[str, Interval], list[str]]:
    """Intervals of those of RBF CKA and CKNNA that were measured, and why any of them is missing.

    Parameters
    ----------
    a, b : Layer
        The same rows in two models.
    documents : array of int, shape (n,), ascending
        The text of each row; texts are resampled whole.
    found : Measured
        The metrics of the pair, with the distinct rows they were computed from.
    settings : config.Measuring
        Replicates (``bootstrap``) and seed.
    """
    rows = found.rows
    names = [name for name in found.metrics if name == "cka_rbf" or name.startswith("cknna@")]
    if not names:
        return {}, []
    if (count := len(np.unique(documents[rows]))) < _FEWEST:
        return {}, [f"{', '.join(names)}: no interval, {count} different documents"]
    made: dict[str, Interval] = {}
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
    return made, [
        f"{name}: no interval, most halves of the texts do not define it"
        for name in names
        if name not in made
    ]


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
