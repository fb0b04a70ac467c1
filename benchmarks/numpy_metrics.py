"""What the benchmark compares with: the five metrics as textbooks and released code compute them, in numpy.

Its matrix products and factorisations are those of HRSA itself, which on x86 are the faster ones: a ratio is
that of two algorithms on one library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy.special import xlogy

from reasoning_embedding.hrsa.metrics.linear_algebra import product, singular_values, svd

Layers = Sequence[np.ndarray]
Pairs = Iterable[tuple[int, int]]


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Mean Pearson correlation of equal dimensions, both sides centred anew."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return float(np.mean((x * y).sum(axis=0) / np.sqrt((x * x).sum(axis=0) * (y * y).sum(axis=0))))


def textbook_cka(x: np.ndarray, y: np.ndarray) -> float:
    """CKA as its definition reads: ``HKH`` and ``HLH`` of two n x n Gram matrices, as matrix products."""
    centring = np.eye(len(x), dtype=x.dtype) - np.asarray(1 / len(x), dtype=x.dtype)
    first, second = (product(product(centring, product(rows, rows.T)), centring) for rows in (x, y))
    return float((first * second).sum() / np.sqrt((first * first).sum() * (second * second).sum()))


def careful_cka(x: np.ndarray, y: np.ndarray) -> float:
    """CKA from D x D products, both sides centred anew and their own products with them."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    norms = [np.linalg.norm(product(rows.T, rows)) for rows in (x, y)]
    return float(np.square(product(x.T, y)).sum() / (norms[0] * norms[1]))


def released_cka(a: Layers, b: Layers, pairs: Pairs) -> list[float]:
    """CKA as the released code computes it: layers centred and normed once, one D x D product a pair."""
    sides = [[layer - layer.mean(axis=0) for layer in side] for side in (a, b)]
    norms = [[float(np.linalg.norm(product(layer.T, layer))) for layer in side] for side in sides]
    return [
        float(np.linalg.norm(product(sides[0][i].T, sides[1][j]))) ** 2 / (norms[0][i] * norms[1][j])
        for i, j in pairs
    ]


def cached_cka(a: Layers, b: Layers) -> np.ndarray:
    """CKA of all pairs from every layer's Gram matrix, all of them held."""
    grams = []
    for layer in (*a, *b):
        centred = layer - layer.mean(axis=0)
        grams.append(product(centred, centred.T).ravel())
    norms = [float(np.linalg.norm(gram)) for gram in grams]
    return np.array(
        [
            [float(x @ y) / (p * q) for y, q in zip(grams[len(a) :], norms[len(a) :], strict=True)]
            for x, p in zip(grams[: len(a)], norms[: len(a)], strict=True)
        ]
    )


def cached_overlaps(a: Layers, b: Layers, k: int = 10) -> np.ndarray:
    """Mean Jaccard overlap of all pairs from every layer's neighbours, which are selected, not sorted."""
    near = []
    for layer in (*a, *b):
        similarity = _cosines(layer)
        near.append(np.argpartition(similarity, -k, axis=1)[:, -k:])
    shared = np.array(
        [[(x[:, :, None] == y[:, None, :]).sum(axis=(1, 2)) for y in near[len(a) :]] for x in near[: len(a)]]
    )
    return (shared / (2 * k - shared)).mean(axis=2)


def dense_neighbours(x: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k nearest rows by cosine, from the whole n x n matrix, sorted."""
    return np.argsort(-_cosines(x), axis=1)[:, :k]


def _cosines(x: np.ndarray) -> np.ndarray:
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    similarity = product(unit, unit.T)
    np.fill_diagonal(similarity, -np.inf)
    return similarity


def knn_overlap(x: np.ndarray, y: np.ndarray, k: int) -> float:
    """Mean Jaccard overlap of the neighbours, row by row."""
    return overlap_of(dense_neighbours(x, k), dense_neighbours(y, k))


def overlap_of(first: np.ndarray, second: np.ndarray) -> float:
    """Mean Jaccard overlap of neighbours (n, k), row by row."""
    shared = np.array([len(np.intersect1d(p, q)) for p, q in zip(first, second, strict=True)])
    return float(np.mean(shared / (2 * first.shape[1] - shared)))


def procrustes(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """H_inv of the map, its residual ratio and mean cosine on the fitted rows, centred anew."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    left, _, right = svd(product(x.T, y))
    rotation = product(left, right)
    squares, moved = np.square(rotation), product(x, rotation)
    entropy = 1 + xlogy(squares, squares).sum() / (len(squares) * np.log(len(squares)))
    cosines = (moved * y).sum(axis=1) / (np.linalg.norm(moved, axis=1) * np.linalg.norm(y, axis=1))
    return float(entropy), float(np.square(moved - y).sum() / np.square(y).sum()), float(cosines.mean())


def procrustes_distance(
    x: np.ndarray, y: np.ndarray, spectrum: Callable[[np.ndarray], np.ndarray] = singular_values
) -> float:
    """``2 - 2 |X'Y|_* / (|X|_F |Y|_F)`` from the singular values of the D x D product, both sides centred anew."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return float(2 - 2 * spectrum(product(x.T, y)).sum() / (np.linalg.norm(x) * np.linalg.norm(y)))
