"""Level 2, geometry: alignment of kernels that weigh near rows more than far ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from reasoning_embedding.errors import InputError

from .layer import Layer, frobenius_square, varies
from .linear_algebra import product
from .neighbours_and_cka import ambiguous, distinct_in_all, duplicates
from .result import Metric, same_rows

RBF_CKA = "biased CKA of Gaussian kernels whose width is {} times the median distance"
CKNNA = (
    "CKNNA (Huh 2024), {} HSIC, k = {}: alignment of cosine kernels{} over pairs that are neighbours in both models, "
    "duplicate rows removed"
)


def rbf_cka(x: Any, y: Any, *, width: float = 0.5) -> Metric:
    """Biased CKA of Gaussian kernels; forms two n x n matrices.

    Parameters
    ----------
    x : array or tensor, shape (n, D_x)
    y : array or tensor, shape (n, D_y)
        The same rows in two models; widths may differ.
    width : float
        Kernel width as a multiple of the median distance, > 0 (Kornblith 2019 names it the threshold).

    Raises
    ------
    InputError
        On NaN rows, different numbers of rows, a width that is not positive, or a side without variation.

    Notes
    -----
    ``K_ij = exp(-|x_i - x_j|^2 / (2 width^2 median |x_i - x_j|^2))``, centred; the median is over all n^2
    entries, the zero diagonal included, as in the released code of Kornblith et al.

    Examples
    --------
    >>> x = np.random.RandomState(0).randn(50, 4)
    >>> print(f"{float(rbf_cka(x, 2 * x - 1)):.3f}")
    1.000
    """
    return rbf_cka_of(Layer(x, "X"), Layer(y, "Y"), width=width)


def rbf_cka_of(a: Layer, b: Layer, *, width: float = 0.5) -> Metric:
    """:func:`rbf_cka` of prepared layers."""
    if width <= 0:
        raise InputError(f"the kernel width must be positive, got {width}")
    same_rows(a.rows, b.rows)
    varies(a, b)
    first, second = (_centred(gaussian_kernel(layer, width)) for layer in (a, b))
    norms = np.sqrt(frobenius_square(first) * frobenius_square(second))
    chance = np.trace(first) * np.trace(second) / ((len(first) - 1) * norms)
    value = float(np.einsum("ij,ij->", first, second)) / norms
    return Metric(value=float(value), n=len(first), definition=RBF_CKA.format(width), chance=float(chance))


def gaussian_kernel(layer: Layer, width: float = 0.5) -> np.ndarray:
    """``exp(-|x_i - x_j|^2 / (2 width^2 median))`` of all rows, float64 (n, n); see :func:`rbf_cka`.

    Raises
    ------
    InputError
        If more than half of the rows are equal.
    """
    rows = layer.centred.astype(np.float64)
    squares = np.square(rows).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * product(rows, rows.T), 0)
    median = np.median(distances)
    if median == 0:
        raise InputError("more than half of the rows are equal, so the kernel has no width", where=layer.name)
    return np.exp(-distances / (2 * width**2 * median))


def _centred(kernel: np.ndarray) -> np.ndarray:
    kernel -= kernel.mean(axis=0)
    return kernel - kernel.mean(axis=1, keepdims=True)


def cknna(x: Any, y: Any, k: int = 10, *, unbiased: bool = True, centred: bool = False) -> Metric:
    """Centred kernel nearest-neighbour alignment: CKA over pairs of rows that are near in both models.

    Parameters
    ----------
    x : array or tensor, shape (n, D_x)
    y : array or tensor, shape (n, D_y)
        The same rows in two models; widths may differ.
    k : int
        Neighbours a row, 2 <= k < number of distinct rows; the row itself counts as one if not `unbiased`.
    unbiased : bool
        The unbiased estimate of HSIC, without a row's similarity to itself, or the biased one with it.
    centred : bool
        Take the mean off before the cosines.

    Raises
    ------
    InputError
        On NaN rows, different numbers of rows, too few distinct rows for `k`, or a self-similarity that is
        not positive.

    Notes
    -----
    With cosine kernels K, L and ``M(K, L)_ij = 1`` where j is among the k nearest of i in both:
    ``HSIC(M(K,L) K, M(K,L) L) / sqrt(HSIC(M(K,K) K, M(K,K) K) HSIC(M(L,L) L, M(L,L) L))`` (Huh et al. 2024,
    "The Platonic representation hypothesis"; the released code on rows of unit length, less its 1e-6 in
    the denominator). M is not symmetric. Only the n k pairs of neighbours are kept.

    Examples
    --------
    >>> x, y = np.random.RandomState(0).randn(2, 200, 16)
    >>> print(f"{float(cknna(x, 2 * x)):.3f} {float(cknna(x, y)):.3f}")
    1.000 0.044
    """
    a, b = Layer(x, "X"), Layer(y, "Y")
    same_rows(a.rows, b.rows)
    rows = distinct_in_all([a, b])
    found = cknna_of(a, b, rows, k, unbiased=unbiased, centred=centred)
    return replace(found, warnings=(*duplicates(len(a), rows), *found.warnings))


def cknna_of(
    a: Layer, b: Layer, rows: np.ndarray, k: int, *, unbiased: bool = True, centred: bool = False
) -> Metric:
    """:func:`cknna` of prepared layers over distinct `rows`; neighbours are shared with k-NN overlap."""
    where = f"{a.name} / {b.name}"
    if not 2 <= k < len(rows) or len(rows) < 4:
        raise InputError(
            f"k = {k} neighbours: CKNNA needs k >= 2 and more than max(k, 3) distinct rows, got {len(rows)}",
            where=where,
            todo="give more distinct rows or another k",
        )
    first, second = (_kernel(layer, rows, k, unbiased, centred) for layer in (a, b))
    value = alignment(first, second, unbiased=unbiased)
    if value is None:
        raise InputError(
            "a self-similarity is not positive, so CKNNA is not defined",
            where=where,
            todo="give more rows or a larger k",
        )
    form, note = "unbiased" if unbiased else "biased", " of centred rows" if centred else ""
    return Metric(
        value=value,
        n=len(rows),
        definition=CKNNA.format(form, k, note),
        warnings=(*ambiguous(a, rows, k, centred), *ambiguous(b, rows, k, centred)),
    )


def alignment(first: csr_array, second: csr_array, *, unbiased: bool = True) -> float | None:
    """CKNNA of two kernels that hold the pairs of neighbours only; None where a self-similarity is not positive."""
    hsic = _unbiased_hsic if unbiased else _biased_hsic
    own = hsic(first, first), hsic(second, second)
    if min(own) <= 0:
        return None
    shared = csr_array(first * (second != 0)), csr_array(second * (first != 0))
    return float(hsic(*shared) / np.sqrt(own[0] * own[1]))


def _kernel(layer: Layer, rows: np.ndarray, k: int, unbiased: bool, centred: bool) -> csr_array:
    """Cosines of each row with its neighbours, sparse (n, n); with 1 on the diagonal for the biased estimate."""
    n = len(rows)
    found, cosines = layer.neighbourhood(rows, k if unbiased else k - 1, centred)
    if not unbiased:
        found = np.column_stack([np.arange(n), found])
        cosines = np.column_stack([np.ones(n), cosines])
    return neighbour_kernel(found, cosines)


def neighbour_kernel(found: np.ndarray, cosines: np.ndarray) -> csr_array:
    """Neighbours (n, k) and their cosines as a sparse kernel (n, n)."""
    n, k = found.shape
    # A pair of right-angled neighbours still is a pair: keep it apart from pairs that are none.
    values = np.where(cosines == 0, np.finfo(np.float64).tiny, cosines)
    return csr_array((values.ravel(), found.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))


def _parts(k: csr_array, m: csr_array) -> tuple[float, float, float, float]:
    """``sum K o M'``, ``1'K1 1'M1``, ``1'KM1`` and ``1'MK1``."""
    trace = float(k.multiply(m.T).sum())
    (rows_k, columns_k), (rows_m, columns_m) = ((s.sum(axis=1), s.sum(axis=0)) for s in (k, m))
    return (
        trace,
        float(rows_k.sum() * rows_m.sum()),
        float(columns_k @ rows_m),
        float(columns_m @ rows_k),
    )


def _unbiased_hsic(k: csr_array, m: csr_array) -> float:
    """HSIC_1 of Song et al. 2012, equation 5, up to ``1 / (n (n - 3))``; the diagonals are empty."""
    n = k.shape[0]
    trace, sums, product, _ = _parts(k, m)
    return trace + sums / ((n - 1) * (n - 2)) - 2 * product / (n - 2)


def _biased_hsic(k: csr_array, m: csr_array) -> float:
    """``tr(K H M H)``, H = I - 11'/n."""
    n = k.shape[0]
    trace, sums, product, turned = _parts(k, m)
    return trace - (product + turned) / n + sums / n**2
