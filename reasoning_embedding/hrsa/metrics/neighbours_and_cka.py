"""Level 2, geometry: are the same rows near each other in both models?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reasoning_embedding.errors import InputError

from .layer import Layer, distinct, frobenius_square, varies
from .result import Metric, as_rows, same_rows

CKA = (
    "biased linear CKA: |Xc'Yc|_F^2 / (|Xc'Xc|_F |Yc'Yc|_F); chance is its mean over permutations of the rows"
)
DEBIASED_CKA = (
    "debiased linear CKA (HSIC_1 of Song 2012, zero-diagonal Gram matrices); may be negative, chance 0"
)
JACCARD = "k-NN overlap at k = {}: mean |A n B| / |A u B| of the cosine neighbours{}, duplicate rows removed"
MUTUAL = "k-NN overlap at k = {}: mean |A n B| / k of the cosine neighbours{}, duplicate rows removed"

#: Cosines nearer than this are equal up to rounding in float64.
_TIE = 1e-14


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

    @property
    def row_values(self) -> tuple[np.ndarray, np.ndarray]:
        """Overlap of each row that took part."""
        return self.per_row, self.rows


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

    Examples
    --------
    >>> x, y = np.random.RandomState(0).randn(2, 50, 500)  # 50 unrelated rows of 500 dimensions
    >>> found = linear_cka(x, y)
    >>> print(f"{found.value:.2f}, by chance {found.chance:.2f}: {found.warnings[0]}")
    0.91, by chance 0.91: unrelated rows would give 0.91 (few rows for the dimensions): use debiased CKA
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

    Examples
    --------
    >>> x, y = np.random.RandomState(0).randn(2, 50, 500)
    >>> abs(float(debiased_linear_cka(x, y))) < 0.05
    True
    """
    return debiased_cka_of(Layer(x, "X"), Layer(y, "Y"))


def cka_of(a: Layer, b: Layer, cross_square: float | None = None) -> Metric:
    """:func:`linear_cka` of prepared layers; `cross_square` is ``|Xc'Yc|_F^2`` if known."""
    same_rows(a.rows, b.rows)
    varies(a, b)
    if cross_square is None:
        cross_square = frobenius_square(a.cross(b))
    scale = np.sqrt(a.self_square * b.self_square)
    chance = a.row_squares.sum() * b.row_squares.sum() / ((len(a) - 1) * scale)
    few = f"unrelated rows would give {chance:.2f} (few rows for the dimensions): use debiased CKA"
    return Metric(
        value=float(min(1.0, cross_square / scale)),
        n=len(a),
        definition=CKA,
        chance=float(chance),
        warnings=(few,) if chance > 0.5 else (),
    )


def _unbiased_hsic(square: float, a: Layer, b: Layer) -> float:
    """Unbiased HSIC up to ``1 / (n (n - 3))``, from ``|Xc'Yc|_F^2`` and the diagonals of the Gram matrices."""
    n, p, q = len(a), a.row_squares, b.row_squares
    both = float(p @ q)
    return square - both + float(p.sum() * q.sum()) / ((n - 1) * (n - 2)) - 2 * both / (n - 2)


def debiased_cka_of(a: Layer, b: Layer, cross_square: float | None = None) -> Metric:
    """:func:`debiased_linear_cka` of prepared layers; `cross_square` is ``|Xc'Yc|_F^2`` if known."""
    same_rows(a.rows, b.rows)
    varies(a, b)
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
    Chance (independent neighbours): mutual ``m = k / (n - 1)``, Jaccard about ``m / (2 - m)``. Where the k-th
    and the next neighbour are equally near all the same (rows on one ray, whole numbers), a warning says so.

    Examples
    --------
    >>> x = np.random.RandomState(0).randn(100, 8)
    >>> found = knn_overlap(x, 3 * x, k=5)
    >>> found.value, found.mutual, round(found.mutual_chance, 3)
    (1.0, 1.0, 0.051)
    """
    a, b = Layer(x, "X"), Layer(y, "Y")
    same_rows(a.rows, b.rows)
    rows = distinct_in_all([a, b])
    overlap = knn_overlap_of(a, b, rows, k, centred=centred)
    return replace(overlap, warnings=(*duplicates(len(a), rows), *overlap.warnings))


def duplicates(n: int, rows: np.ndarray) -> tuple[str, ...]:
    """Say how many of `n` rows repeat others and are not among `rows`."""
    return (f"{n - len(rows)} of {n} rows are duplicates and left out",) if len(rows) < n else ()


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
    # One more than asked for shows ties at the border.
    reach = min(max(k, k_max or k) + 1, len(rows) - 1)
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
        warnings=(*ambiguous(a, rows, k, centred), *ambiguous(b, rows, k, centred)),
        mutual=float(shared.mean() / k),
        mutual_chance=chance,
        mutual_definition=MUTUAL.format(k, note),
        per_row=per_row,
        rows=rows,
    )


def ambiguous(layer: Layer, rows: np.ndarray, k: int, centred: bool) -> list[str]:
    """Warnings on `rows` whose `k` neighbours a rounding error decides."""
    found = []
    nothing = 0 if centred else int(layer.zero[rows].sum())
    if nothing:
        found.append(f"{layer.name}: {nothing} rows are zero and have no direction")
    if k + 1 < len(rows):
        cosines = layer.neighbourhood(rows, k + 1, centred)[1]
        tied = int((cosines[:, k - 1] - cosines[:, k] <= _TIE).sum())
        if tied:
            found.append(
                f"{layer.name}: the {k}-th neighbour of {tied} of {len(rows)} rows ties with the next"
            )
    return found
