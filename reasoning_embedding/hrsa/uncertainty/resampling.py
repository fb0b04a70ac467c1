"""How sure a number is: intervals over documents, nulls over permuted rows."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.metrics.layer import Layer
from reasoning_embedding.hrsa.metrics.linear_algebra import product
from reasoning_embedding.hrsa.metrics.result import Interval, NullTest, as_rows, same_rows

#: Rows of a block of the Gram matrices, which are never held whole.
_BLOCK = 1024
#: Share of the documents that are long enough for a null: the others are left out, and of the longer ones the rest.
LONG_ENOUGH = 0.75
#: Values that a part of a bootstrap over queries holds in memory.
_CHUNK = 4_000_000


def permutation_null(
    statistic: Callable[[np.ndarray, np.ndarray], Any],
    x: Any,
    y: Any,
    *,
    permutations: int = 200,
    seed: int = 0,
    documents: np.ndarray | None = None,
    distance: bool = False,
) -> NullTest:
    """Test whether the rows of X and Y belong together by shuffling the rows of Y.

    Parameters
    ----------
    statistic : callable
        Two arrays (n, D) to a number (or a metric); large = similar.
    x, y : array or tensor, shape (n, D)
        The same rows in two models.
    permutations : int
        B >= 1; the smallest p is 1 / (B + 1).
    seed : int
        Seed of the shuffles.
    documents : array of int, shape (n,), optional
        The document of each row; documents are shuffled whole, position by position, which leaves rows out where
        lengths differ (:func:`aligned_rows`).
    distance : bool
        Small = similar instead.

    Raises
    ------
    InputError
        On NaN rows, different numbers of rows, or no permutations.

    Examples
    --------
    >>> from reasoning_embedding.hrsa import linear_cka
    >>> x, y = np.random.RandomState(0).randn(2, 60, 4)
    >>> print(permutation_null(linear_cka, x, x + y).p < 0.01, permutation_null(linear_cka, x, y).p < 0.01)
    True False
    """
    x, y = as_rows(x, "X"), as_rows(y, "Y")
    same_rows(x, y)
    if documents is not None:
        rows = aligned_rows(documents)
        x, y, documents = x[rows], y[rows], np.asarray(documents)[rows]
    orders = shuffles(len(y) if documents is None else documents, permutations, seed)
    values = [float(statistic(x, y[order])) for order in orders]
    return null_test(float(statistic(x, y)), values, rows=len(x), distance=distance)


def aligned_rows(documents: np.ndarray) -> np.ndarray:
    """Rows that keep their place when whole documents change places: the first ones of each long enough document.

    Parameters
    ----------
    documents : array, shape (n,)
        The document of each row; the rows of a document stand in the order of their positions.

    Returns
    -------
    array of int, document by document
        The first m rows of every document that has m of them; m is the largest length that three quarters have.

    Notes
    -----
    Documents of different lengths that change places shift all rows behind them, so that rows of one document are
    compared with rows of several: such a null is too narrow and rejects what is unrelated in up to all cases. Among
    documents of m rows a shuffle takes position p of one to position p of another, and the test is exact.
    """
    _, codes, sizes = np.unique(documents, return_inverse=True, return_counts=True)
    length = int(np.quantile(sizes, 1 - LONG_ENOUGH, method="lower"))
    order = np.argsort(codes, kind="stable")
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return order[(sizes[codes[order]] >= length) & (place < length)]


def shuffles(documents: int | np.ndarray, permutations: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Give B orders of the rows: of all of them if a number is given, else of whole documents.

    Rows of one document are alike, so shuffling rows would make the null too narrow. Rows keep their order
    within a document. A test needs documents of one length (:func:`aligned_rows`): others shift each other along,
    which is good enough for a mean level only.
    """
    if permutations < 1:
        raise InputError(f"a null needs at least one permutation, got {permutations}")
    rng = np.random.default_rng(seed)
    if isinstance(documents, int):
        return (rng.permutation(documents) for _ in range(permutations))
    _, codes = np.unique(documents, return_inverse=True)
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    return (np.concatenate([rows[i] for i in rng.permutation(len(rows))]) for _ in range(permutations))


def null_test(value: float, null: Sequence[float], *, rows: int, distance: bool = False) -> NullTest:
    """Where a value stands among those of permuted rows."""
    found = np.asarray(null, dtype=np.float64)
    beyond = (found <= value) if distance else (found >= value)
    p = (1 + int(beyond.sum())) / (1 + len(found))
    return NullTest(value, float(found.mean()), float(found.std()), p, len(found), rows)


def resampled_counts(documents: int, replicates: int, seed: int = 0) -> np.ndarray:
    """How often each document is drawn in each bootstrap replicate, shape (B, documents)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(documents, np.full(documents, 1 / documents), size=replicates)


def halves(codes: np.ndarray, splits: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of the two halves of the documents, of random splits; `codes` (n,) numbers documents from 0."""
    count = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    for _ in range(splits):
        first = np.isin(codes, rng.permutation(count)[: (count + 1) // 2])
        yield np.flatnonzero(first), np.flatnonzero(~first)


def interval_of_halves(
    value: float, pairs: Sequence[tuple[float, float]] | np.ndarray, documents: int, level: float = 0.95
) -> Interval:
    """Interval of a statistic that repeated rows spoil, from its values on the two halves of random splits.

    Parameters
    ----------
    value : float
        Of all documents.
    pairs : array, shape (splits, 2)
        Values of one half and of the other.
    documents : int
        How many there are: one less are the degrees of freedom.
    level : float
        In (0, 1).

    Notes
    -----
    The halves share no document, so ``E (a - b)^2 / 2`` is the variance of the statistic on half of the documents
    without bias, and half of that the variance on all: ``se^2 = mean (a - b)^2 / 4`` (two random groups: Wolter,
    Introduction to Variance Estimation, chapter 2). The spread of the halves about their own mean (McCarthy 1969)
    is larger, 1.2 to 1.3 times the right width for k-NN overlap: it also counts how the halves' sum varies.
    """
    differences = np.diff(np.asarray(pairs, dtype=np.float64), axis=1).ravel() / 2
    error = float(np.sqrt(np.mean(np.square(differences))))
    half = float(stdtrit(documents - 1, (1 + level) / 2)) * error
    return Interval(value - half, value + half, level, value + differences)


def interval(value: float, replicates: np.ndarray, level: float = 0.95) -> Interval:
    """Percentile interval of bootstrap replicates, moved so that their median lies on the estimate.

    Resampled documents repeat, which shifts biased similarities (CKA) upward; the shift is taken off.
    """
    tails = [50 * (1 - level), 50, 50 * (1 + level)]
    low, middle, high = np.percentile(replicates, tails)
    moved = np.asarray(replicates) + (value - middle)
    return Interval(float(value + low - middle), float(value + high - middle), level, moved)


def bootstrap_mean(
    values: np.ndarray, documents: np.ndarray, *, replicates: int = 200, seed: int = 0, level: float = 0.95
) -> Interval:
    """Interval of the mean of per-row values, documents resampled whole.

    Parameters
    ----------
    values : array, shape (n,)
        One number a row.
    documents : array of int, shape (n,)
        The document of each row.
    replicates : int
        B.
    seed : int
        Seed of the resampling.
    level : float
        In (0, 1).

    Examples
    --------
    >>> found = bootstrap_mean(np.random.RandomState(0).randn(400), np.repeat(np.arange(100), 4))
    >>> found.low < 0 < found.high
    True
    """
    names, codes = np.unique(documents, return_inverse=True)
    sums, sizes = np.bincount(codes, weights=values), np.bincount(codes)
    counts = resampled_counts(len(names), replicates, seed)
    return interval(float(values.mean()), (counts @ sums) / (counts @ sizes), level)


def bootstrap_means(
    differences: Sequence[Sequence[float] | np.ndarray],
    keys: Sequence[str],
    *,
    draws: int = 5000,
    seed: int = 0,
) -> np.ndarray:
    """Mean differences of tasks over resampled queries, all tasks in every draw.

    Parameters
    ----------
    differences : sequence of array_like, shapes (n_t,)
        Per task, variant minus base for each query: the models are resampled together, never apart.
    keys : sequence of str
        Which queries a task asks. Tasks of one key ask the same ones and get the same draw (as the short and
        the long documents of a benchmark do); others are drawn on their own.
    draws : int
        Resamples, > 0.
    seed : int
        Makes the draws; those of a task depend on it and on the key alone.

    Returns
    -------
    ndarray, shape (draws, tasks)
        A mean over tasks is taken within a row, so what tasks share is not averaged away.

    Raises
    ------
    InputError
        If a task has no query, or two tasks of one key have different numbers of them.

    Notes
    -----
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 13; over queries in retrieval:
    Sakai, SIGIR 2006.
    """
    arrays = [_scores(values) for values in differences]
    means = np.empty((draws, len(arrays)))
    for key in dict.fromkeys(keys):
        members = [index for index, other in enumerate(keys) if other == key]
        sizes = {arrays[index].size for index in members}
        if len(sizes) != 1:
            raise InputError(f"tasks with the same queries have {sorted(sizes)} of them")
        size = sizes.pop()
        rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
        rows = max(1, _CHUNK // size)
        for start in range(0, draws, rows):
            picked = rng.integers(0, size, (min(rows, draws - start), size))
            for index in members:
                means[start : start + len(picked), index] = arrays[index][picked].mean(axis=1)
    return means


def _scores(values: Sequence[float] | np.ndarray) -> np.ndarray:
    found = np.asarray(values, dtype=np.float64).ravel()
    if not found.size or not np.isfinite(found).all():
        raise InputError("scores must be finite numbers, at least one")
    return found


def bootstrap_similarity(
    a: Layer, b: Layer, documents: np.ndarray, *, replicates: int = 200, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """Intervals of linear CKA and, at equal widths, of dimension-wise correlation; documents resampled whole.

    Parameters
    ----------
    a, b : Layer
        The same n rows in two models.
    documents : array of int, shape (n,), ascending
        The document of each row; rows of a document stand together.
    replicates : int
        B.
    seed : int
        Seed of the resampling.
    level : float
        In (0, 1).

    Returns
    -------
    dict
        ``cka`` and, where the widths are equal, ``dimension_correlation``.

    Notes
    -----
    Nothing is recomputed from rows: with document counts w, ``|sum_d w_d X_d'Y_d|_F^2 = w'Gw`` where ``G`` holds
    block sums of the elementwise product of the two Gram matrices, and the centring term needs only the
    documents' sums. One pass costs n^2 D; a replicate costs documents^2.
    """
    names, starts, sizes = np.unique(documents, return_index=True, return_counts=True)
    counts = resampled_counts(len(names), replicates, seed).astype(np.float64)
    found = {}
    draws = np.vstack([np.ones(len(names)), counts])  # the first row is the sample itself
    cross, own_a, own_b = (
        _centred_squares(first, second, starts, sizes, draws) for first, second in ((a, b), (a, a), (b, b))
    )
    cka = cross / np.sqrt(own_a * own_b)
    found["cka"] = interval(float(cka[0]), cka[1:], level)
    if a.width == b.width:
        correlation = _correlations(a, b, starts, sizes, draws)
        found["dimension_correlation"] = interval(float(correlation[0]), correlation[1:], level)
    return found


def _sums(rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.add.reduceat(rows, starts, axis=0).astype(np.float64)


def _centred_squares(
    a: Layer, b: Layer, starts: np.ndarray, sizes: np.ndarray, draws: np.ndarray
) -> np.ndarray:
    """``|X'Y - s t' / n|_F^2`` of each weighted draw, s and t the weighted column sums."""
    x, y = a.centred, b.centred
    blocks = np.empty((len(starts), len(starts)))
    ends = np.append(starts[1:], len(x))
    for first in range(0, len(starts), max(1, _BLOCK * len(starts) // len(x))):
        last = min(len(starts), first + max(1, _BLOCK * len(starts) // len(x)))
        rows = slice(starts[first], ends[last - 1])
        gram = product(x[rows], x.T)
        gram *= gram if b is a else product(y[rows], y.T)
        by_column = np.add.reduceat(gram, starts, axis=1)
        blocks[first:last] = np.add.reduceat(by_column, starts[first:last] - starts[first], axis=0)
    n = draws @ sizes
    s, t = draws @ _sums(x, starts), draws @ _sums(y, starts)
    plain = np.einsum("bd,bd->b", draws @ blocks, draws)
    # <sum_d w_d X_d'Y_d, s t'> = sum_d w_d sum_(i in d) (x_i s)(y_i t)
    projected = np.add.reduceat((x @ s.T) * (y @ t.T), starts, axis=0)
    mixed = np.einsum("bd,db->b", draws, projected)
    return plain - 2 * mixed / n + (s * s).sum(axis=1) * (t * t).sum(axis=1) / n**2


def _correlations(a: Layer, b: Layer, starts: np.ndarray, sizes: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Mean dimension-wise correlation of each weighted draw; dimensions constant in the sample are left out."""
    alive = ~(a.constant | b.constant)
    x, y = a.centred[:, alive], b.centred[:, alive]
    n = (draws @ sizes)[:, None]
    sx, sy = draws @ _sums(x, starts), draws @ _sums(y, starts)
    xx, yy, xy = (draws @ _sums(p, starts) for p in (x * x, y * y, x * y))
    spread = np.sqrt(np.maximum(xx - sx * sx / n, 0) * np.maximum(yy - sy * sy / n, 0))
    rho = np.where(spread > 0, (xy - sx * sy / n) / np.where(spread > 0, spread, 1), np.nan)
    return np.nanmean(rho, axis=1)
