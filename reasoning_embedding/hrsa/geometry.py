"""Level 2, geometry: are the same rows near each other in both models?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reasoning_embedding.errors import InputError

from .layer import Layer, distinct, frobenius_square
from .result import Metric, as_rows, same_rows

CKA = (
    "biased linear CKA: |Xc'Yc|_F^2 / (|Xc'Xc|_F |Yc'Yc|_F); chance is its mean over permutations of the rows"
)
DEBIASED_CKA = (
    "debiased linear CKA (HSIC_1 of Song 2012, zero-diagonal Gram matrices); may be negative, chance 0"
)
RBF_CKA = "biased CKA of Gaussian kernels whose width is {} times the median distance"
JACCARD = "k-NN overlap at k = {}: mean |A n B| / |A u B| of the cosine neighbours{}, duplicate rows removed"
MUTUAL = "k-NN overlap at k = {}: mean |A n B| / k of the cosine neighbours{}, duplicate rows removed"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnnOverlap(Metric):
    """k-nearest-neighbour overlap; `value` is the Jaccard form.

    Parameters
    ----------
    mutual : float
        ``|A n B| / k`` instead.
    mutual_chance : float
        ``k / (n - 1)``.
    mutual_definition : str
        What `mutual` is.
    per_row : array, shape (n,)
        Jaccard overlap of each row that took part.
    rows : array of int, shape (n,)
        Which rows of the input those are.
    """

    mutual: float
    mutual_chance: float
    mutual_definition: str
    per_row: np.ndarray
    rows: np.ndarray


def linear_cka(x: Any, y: Any) -> Metric:
    """Biased linear centred kernel alignment (Kornblith 2019), in [0, 1].

    Parameters
    ----------
    x : array or tensor, shape (n, D_x)
    y : array or tensor, shape (n, D_y)
        The same rows in two models; widths may differ.

    Raises
    ------
    InputError
        On NaN rows, on different numbers of rows and when a side does not vary at all.

    Notes
    -----
    ``|Xc'Yc|_F^2 / (|Xc'Xc|_F |Yc'Yc|_F)``. Biased upward: its chance level, the exact mean over row
    permutations ``tr K tr L / ((n-1) |K|_F |L|_F)`` of the centred Gram matrices, is about
    ``sqrt(pq / ((n+p)(n+q)))`` for Gaussian rows.
    """
    return cka_of(Layer(x, "X"), Layer(y, "Y"))


def debiased_linear_cka(x: Any, y: Any) -> Metric:
    """Linear CKA from the unbiased HSIC estimate; about 0 for unrelated rows whatever n and D.

    Parameters
    ----------
    x : array or tensor, shape (n, D_x), n >= 4
    y : array or tensor, shape (n, D_y)
        The same rows in two models; widths may differ.

    Raises
    ------
    InputError
        On NaN rows, different numbers of rows, n < 4, or a side without variation.

    Notes
    -----
    HSIC_1 of Song et al. 2012 (JMLR 13, equation 5), as in Murphy et al. 2024, in feature space: no n x n
    matrix is formed. The estimate does not change when the rows are centred first, and then ``K1 = 0``.
    """
    return debiased_cka_of(Layer(x, "X"), Layer(y, "Y"))


def _varies(*layers: Layer) -> None:
    for layer in layers:
        if layer.constant.all():
            raise InputError(
                "all rows are equal, so CKA is not defined", where=layer.name, todo="use rows that differ"
            )


def cka_of(a: Layer, b: Layer, cross_square: float | None = None) -> Metric:
    """:func:`linear_cka` of prepared layers; `cross_square` is ``|Xc'Yc|_F^2`` if known."""
    same_rows(a.rows, b.rows)
    _varies(a, b)
    if cross_square is None:
        cross_square = frobenius_square(a.cross(b))
    scale = np.sqrt(a.self_square * b.self_square)
    chance = a.row_squares.sum() * b.row_squares.sum() / ((len(a) - 1) * scale)
    return Metric(value=float(min(1.0, cross_square / scale)), n=len(a), definition=CKA, chance=float(chance))


def _unbiased_hsic(square: float, a: Layer, b: Layer) -> float:
    """Unbiased HSIC up to ``1 / (n (n - 3))``, from ``|Xc'Yc|_F^2`` and the diagonals of the Gram matrices."""
    n, p, q = len(a), a.row_squares, b.row_squares
    both = float(p @ q)
    return square - both + float(p.sum() * q.sum()) / ((n - 1) * (n - 2)) - 2 * both / (n - 2)


def debiased_cka_of(a: Layer, b: Layer, cross_square: float | None = None) -> Metric:
    """:func:`debiased_linear_cka` of prepared layers; `cross_square` is ``|Xc'Yc|_F^2`` if known."""
    same_rows(a.rows, b.rows)
    _varies(a, b)
    where = f"{a.name} / {b.name}"
    if len(a) < 4:
        raise InputError(f"debiased CKA needs at least 4 rows, got {len(a)}", where=where)
    if cross_square is None:
        cross_square = frobenius_square(a.cross(b))
    own = _unbiased_hsic(a.self_square, a, a) * _unbiased_hsic(b.self_square, b, b)
    if own <= 0:
        raise InputError("too few rows to debias CKA (a self-similarity is not positive)", where=where)
    value = _unbiased_hsic(cross_square, a, b) / np.sqrt(own)
    return Metric(value=float(value), n=len(a), definition=DEBIASED_CKA, chance=0.0)


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
    """
    if width <= 0:
        raise InputError(f"the kernel width must be positive, got {width}")
    layers = Layer(x, "X"), Layer(y, "Y")
    same_rows(layers[0].rows, layers[1].rows)
    _varies(*layers)
    first, second = (_centred_gaussian(layer, width) for layer in layers)
    norms = np.sqrt(frobenius_square(first) * frobenius_square(second))
    chance = np.trace(first) * np.trace(second) / ((len(first) - 1) * norms)
    value = float(np.einsum("ij,ij->", first, second)) / norms
    return Metric(value=float(value), n=len(first), definition=RBF_CKA.format(width), chance=float(chance))


def _centred_gaussian(layer: Layer, width: float) -> np.ndarray:
    rows = layer.centred.astype(np.float64)
    squares = np.square(rows).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * rows @ rows.T, 0)
    median = np.median(distances)
    if median == 0:
        raise InputError("more than half of the rows are equal, so the kernel has no width", where=layer.name)
    kernel = np.exp(-distances / (2 * width**2 * median))
    kernel -= kernel.mean(axis=0)
    return kernel - kernel.mean(axis=1, keepdims=True)


def knn_overlap(x: Any, y: Any, k: int = 10, *, centred: bool = False) -> KnnOverlap:
    """Overlap of the cosine neighbours that a row has in two models, mean over rows.

    Parameters
    ----------
    x : array or tensor, shape (n, D_x)
    y : array or tensor, shape (n, D_y)
        The same rows in two models; widths may differ.
    k : int
        Neighbours a row, without itself; 1 <= k < number of distinct rows.
    centred : bool
        Take the mean off first: cosine neighbours are not translation-invariant, while CKA is.

    Raises
    ------
    InputError
        On NaN rows, different numbers of rows, or too few distinct rows for `k`.

    Notes
    -----
    Rows that repeat an earlier row on either side are removed first: among equal rows ties would decide.
    Chance (independent neighbours): mutual ``m = k / (n - 1)``, Jaccard about ``m / (2 - m)``.
    """
    a, b = Layer(x, "X"), Layer(y, "Y")
    same_rows(a.rows, b.rows)
    rows = distinct_in_all([a, b])
    overlap = knn_overlap_of(a, b, rows, k, centred=centred)
    if len(rows) == len(a):
        return overlap
    return replace(overlap, warnings=(f"{len(a) - len(rows)} of {len(a)} rows are duplicates and left out",))


def distinct_in_all(layers: list[Layer], among: np.ndarray | None = None) -> np.ndarray:
    """Rows (of `among`, or all) that repeat no other row in any of the layers, ascending."""
    rows = np.arange(len(layers[0])) if among is None else among
    for layer in layers:
        if len(rows) > 1:
            rows = rows[distinct(as_rows(layer.rows[rows], layer.name))]
    return rows


def knn_overlap_of(
    a: Layer, b: Layer, rows: np.ndarray, k: int, *, centred: bool = False, k_max: int | None = None
) -> KnnOverlap:
    """:func:`knn_overlap` of prepared layers over distinct `rows`; `k_max` neighbours are kept for later calls."""
    if not 1 <= k < len(rows):
        raise InputError(
            f"k = {k} neighbours need more than {k} distinct rows, got {len(rows)}",
            where=f"{a.name} / {b.name}",
            todo="give more distinct rows or a smaller k",
        )
    reach = min(max(k, k_max or k), len(rows) - 1)
    first, second = (layer.neighbours(rows, reach, centred)[:, :k] for layer in (a, b))
    shared = np.concatenate(
        [
            (first[i : i + 1024, :, None] == second[i : i + 1024, None, :]).sum(axis=(1, 2))
            for i in range(0, len(rows), 1024)
        ]
    )
    per_row = shared / (2 * k - shared)
    chance = k / (len(rows) - 1)
    note = " of centred rows" if centred else ""
    return KnnOverlap(
        value=float(per_row.mean()),
        n=len(rows),
        definition=JACCARD.format(k, note),
        chance=chance / (2 - chance),
        mutual=float(shared.mean() / k),
        mutual_chance=chance,
        mutual_definition=MUTUAL.format(k, note),
        per_row=per_row,
        rows=rows,
    )
