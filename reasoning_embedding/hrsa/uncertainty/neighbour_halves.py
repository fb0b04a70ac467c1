"""k-NN overlap and CKNNA within halves of the texts, whose neighbours are sorted once: what their intervals are of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reasoning_embedding.hrsa.metrics.layer import Layer
from reasoning_embedding.hrsa.metrics.nearest import largest, products, unit_rows
from reasoning_embedding.hrsa.metrics.neighbours import alignment, neighbour_kernel

from .resampling import halves


def knn_of_halves(
    a: Layer,
    b: Layer,
    rows: np.ndarray,
    documents: np.ndarray,
    ks: list[int],
    splits: int,
    seed: int,
    *,
    centred: bool = False,
) -> dict[int, np.ndarray]:
    """k-NN overlap by k, Jaccard and mutual, of both halves of random splits: shape (splits or fewer, 2 forms, 2 halves).

    Notes
    -----
    Neighbours are sorted once; those of a half are the first ones that lie in it. A half keeps k, as its variance
    is then twice that of the whole, unless k is more than an eighth of all rows: then it keeps their share, k / 2.
    """
    _, codes = np.unique(documents, return_inverse=True)
    half_ks = {k: k if 8 * k <= len(rows) else max(1, (k + 1) // 2) for k in ks}
    reach = min(len(rows) - 1, 4 * max(half_ks.values()) + 64)
    near = [layer.neighbours(rows, reach, centred)[0] for layer in (a, b)]

    def every(side: int) -> np.ndarray:
        return (a, b)[side].neighbours(rows, len(rows) - 1, centred)[0]

    found: dict[int, list[list[list[float]]]] = {k: [] for k in ks}
    for pair in halves(codes, splits, seed):
        for k, inside in half_ks.items():
            if inside < min(map(len, pair)):
                shares = [_overlap_within(near, every, half, inside) for half in pair]
                found[k].append([list(form) for form in zip(*shares, strict=True)])
    return {k: np.array(values) for k, values in found.items()}


def _overlap_within(
    near: list[np.ndarray], every: Callable[[int], np.ndarray], half: np.ndarray, k: int
) -> tuple[float, float]:
    """Jaccard and mutual overlap among the `half`, from the nearest neighbours of all rows, or `every` one by side."""
    inside = np.zeros(len(near[0]), dtype=bool)
    inside[half] = True
    sets = []
    for side, known in enumerate(near):
        mine = known[half]
        kept = inside[mine]
        if (
            kept.sum(axis=1) < k
        ).any():  # neighbours that stand together in the other half: look at all of them
            mine = every(side)[half]
            kept = inside[mine]
        kept &= np.cumsum(kept, axis=1) <= k
        sets.append(mine[kept].reshape(len(half), k))
    shared = (sets[0][:, :, None] == sets[1][:, None, :]).sum(axis=(1, 2))
    return float((shared / (2 * k - shared)).mean()), float(shared.mean() / k)


def cknna_of_halves(
    x: np.ndarray, y: np.ndarray, documents: np.ndarray, ks: list[int], splits: int, seed: int
) -> dict[int, np.ndarray]:
    """CKNNA by k of both halves of random splits of the documents, shape (splits, 2), or fewer where it is not defined.

    Notes
    -----
    A row that is drawn twice would be its own nearest neighbour, so halves are drawn without repetition. All cosines
    are computed once; a half sorts those among its rows.
    """
    _, codes = np.unique(documents, return_inverse=True)
    cosines = [products(unit_rows(rows)) for rows in (x, y)]
    for matrix in cosines:
        np.fill_diagonal(matrix, -np.inf)
    found: dict[int, list[list[float]]] = {k: [] for k in ks}
    for pair in halves(codes, splits, seed):
        both = [_cknna_within(cosines, rows, ks) for rows in pair]
        for k in ks:
            values = [one[k] for one in both if k in one]
            if len(values) == 2:
                found[k].append(values)
    return {k: np.array(values) for k, values in found.items()}


def _cknna_within(cosines: list[np.ndarray], rows: np.ndarray, ks: list[int]) -> dict[int, float]:
    """CKNNA among some rows by k, of those k that it is defined for."""
    reach = min(max(ks), len(rows) - 1)
    if len(rows) < 4:
        return {}
    near = [largest(matrix[np.ix_(rows, rows)], reach) for matrix in cosines]
    found = {}
    for k in (k for k in ks if k <= reach):
        value = alignment(*(neighbour_kernel(index[:, :k], values[:, :k]) for index, values in near))
        if value is not None:
            found[k] = value
    return found
