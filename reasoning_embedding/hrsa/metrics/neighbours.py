"""Level 2, geometry: are the same rows near each other in both models?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from reasoning_embedding.errors import InputError

from .layer import Layer, distinct
from .result import Metric, as_rows, same_rows

JACCARD = "k-NN overlap at k = {}: mean |A n B| / |A u B| of the cosine neighbours{}, duplicate rows removed"
MUTUAL = "k-NN overlap at k = {}: mean |A n B| / k of the cosine neighbours{}, duplicate rows removed"

CKNNA = (
    "CKNNA (Huh 2024), {} HSIC, k = {}: alignment of cosine kernels{} over pairs that are neighbours in both models, "
    "duplicate rows removed"
)


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
    reach = min(max(k, k_max or k), len(rows) - 1)
    first, second = (layer.nearest(rows, k, centred, reach=reach)[0] for layer in (a, b))
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
    tied = int(layer.nearest(rows, k, centred)[1].sum())
    if tied:
        found.append(f"{layer.name}: the {k}-th neighbour of {tied} of {len(rows)} rows ties with the next")
    return found


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
    found, cosines = layer.nearest_with_cosines(rows, k if unbiased else k - 1, centred, reach=k)
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
