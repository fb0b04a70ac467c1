"""Interval of debiased CKA at any width: every document left out once, from sums over the Gram matrices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.special import stdtrit

from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.metrics.layer import Layer
from reasoning_embedding.hrsa.metrics.linear_algebra import product
from reasoning_embedding.hrsa.metrics.result import Interval

from .resampling import resampled_counts

#: Rows of a block of the Gram matrices, which are never held whole.
_BLOCK = 256


def debiased_cka_interval(
    a: Layer, b: Layer, documents: np.ndarray, *, replicates: int = 200, seed: int = 0, level: float = 0.95
) -> Interval:
    """Interval of debiased linear CKA over documents.

    Parameters
    ----------
    a, b : Layer
        The same n rows in two models.
    documents : array, shape (n,), ascending
        The document of each row; rows of a document stand together.
    replicates : int
        Replicates that the interval carries, so that differences between metrics can be tested.
    seed : int
        Seed of those.
    level : float
        In (0, 1).

    Raises
    ------
    InputError
        For fewer than four documents, or where one left out leaves nothing that CKA is defined on.

    Notes
    -----
    Delete-one jackknife of ``z = artanh CKA`` with documents less one degrees of freedom (Efron and Tibshirani 1993,
    chapter 11): ``se^2 = (m - 1)/m sum_d (z_d - mean z)^2`` about ``m z - (m - 1) mean z``, which leaves out what rows
    of one text, that are alike, add to CKA in the order of 1/m. Replicates are linear in how often a document is drawn.
    """
    left_out = np.clip(leave_one_out(a, b, documents), -1 + 1e-12, 1 - 1e-12)
    m, z = len(left_out) - 1, np.arctanh(left_out)
    influence = (m - 1) * (z[1:].mean() - z[1:])
    error = float(np.sqrt(influence @ influence / (m * (m - 1))))
    half = float(stdtrit(m - 1, (1 + level) / 2)) * error
    drawn = resampled_counts(m, replicates, seed) @ influence / np.sqrt(m * (m - 1))
    middle = m * z[0] - (m - 1) * z[1:].mean()
    low, high = np.tanh(middle - half), np.tanh(middle + half)
    return Interval(float(low), float(high), level, np.tanh(z[0] + drawn))


def leave_one_out(a: Layer, b: Layer, documents: np.ndarray) -> np.ndarray:
    """Debiased CKA of all documents, and without each of them: shape (1 + documents,).

    Notes
    -----
    HSIC_1 of Song et al. 2012 needs ``tr K~L~``, ``1'K~1``, ``1'L~1`` and ``1'K~L~1`` of Gram matrices without their
    diagonals. What a document adds to each is a sum over its rows and columns, so one pass over the matrices gives all
    of them: n^2 D, whatever the number of documents. Centring by the mean of all rows does not change HSIC_1.
    """
    _, starts, sizes = np.unique(documents, return_index=True, return_counts=True)
    if len(starts) < 4:
        raise InputError(
            f"{len(starts)} different documents",
            where="documents",
            todo="at least four are needed to leave one out",
        )
    n = len(a) - np.append(0, sizes)
    cross, own_a, own_b = (
        _hsic(n, *sums) for sums in zip(*_sums(a.centred, b.centred, starts, sizes), strict=True)
    )
    if (n < 4).any() or min(own_a.min(), own_b.min()) <= 0:
        raise InputError(
            "without one of the documents too few rows are left for debiased CKA",
            where=f"{a.name} / {b.name}",
        )
    return cross / np.sqrt(own_a * own_b)


def _hsic(
    n: np.ndarray, trace: np.ndarray, first: np.ndarray, second: np.ndarray, both: np.ndarray
) -> np.ndarray:
    """HSIC_1 from ``tr K~L~``, ``1'K~1``, ``1'L~1`` and ``1'K~L~1`` of n rows each, up to ``1 / (n (n - 3))``."""
    return (trace + first * second / ((n - 1) * (n - 2)) - 2 * both / (n - 2)) / (n * (n - 3))


def _sums(
    x: np.ndarray, y: np.ndarray, starts: np.ndarray, sizes: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The four sums that HSIC_1 needs, each of (K, L), (K, K) and (L, L): of all documents, and without each."""
    codes = np.repeat(np.arange(len(starts)), sizes)
    pairs = ((0, 1), (0, 0), (1, 1))
    # Of each pair: of all rows, what document d's rows share with all, and with each other.
    trace, trace_rows, trace_own = (np.zeros((3, len(starts))) for _ in range(3))
    both, mixed, own_both = (np.zeros((3, len(starts))) for _ in range(3))
    totals, rows_of, within = (np.zeros((2, len(starts))) for _ in range(3))
    for start in range(0, len(x), _BLOCK):
        part = slice(start, start + _BLOCK)
        mine, own = codes[part], np.arange(len(x[part]))
        grams = [product(side[part], side.T).astype(np.float64) for side in (x, y)]
        for gram in grams:
            gram[own, own + start] = 0
        by_document = [np.add.reduceat(gram, starts, axis=1) for gram in grams]
        sums = [table.sum(axis=1) for table in by_document]
        for side, (table, total) in enumerate(zip(by_document, sums, strict=True)):
            totals[side] += total.sum()
            np.add.at(rows_of[side], mine, total)
            np.add.at(within[side], mine, table[own, mine])
        for pair, (i, j) in enumerate(pairs):
            shared = np.add.reduceat(grams[i] * grams[j], starts, axis=1)
            trace[pair] += shared.sum()
            np.add.at(trace_rows[pair], mine, shared.sum(axis=1))
            np.add.at(trace_own[pair], mine, shared[own, mine])
            u, v, of_u, of_v = sums[i], sums[j], by_document[i], by_document[j]
            both[pair] += u @ v
            mixed[pair] += (of_u * of_v).sum(axis=0) - u @ of_v - v @ of_u
            np.add.at(own_both[pair], mine, (u - of_u[own, mine]) * (v - of_v[own, mine]))
    sums_of = np.hstack([totals[:, :1], totals - 2 * rows_of + within])
    yield tuple(np.hstack([trace[:, :1], trace - 2 * trace_rows + trace_own]))
    yield tuple(sums_of[i] for i, _ in pairs)
    yield tuple(sums_of[j] for _, j in pairs)
    yield tuple(np.hstack([both[:, :1], both + mixed - own_both]))
