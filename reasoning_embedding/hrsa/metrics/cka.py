"""Level 2, geometry: centred kernel alignment of linear and of Gaussian kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.moments import PairMoments, RowMoments

from .layer import Layer, frobenius_square, layer_of
from .linear_algebra import product
from .nearest import unit_rows
from .result import Metric, effective_rows, few_rows_carry, same_rows, varies

CKA = (
    "biased linear CKA: |Xc'Yc|_F^2 / (|Xc'Xc|_F |Yc'Yc|_F); chance is its mean over permutations of the rows"
)
DEBIASED_CKA = (
    "debiased linear CKA (HSIC_1 of Song 2012, zero-diagonal Gram matrices); may be negative, chance 0"
)
UNIT_CKA = (
    "debiased linear CKA (HSIC_1 of Song 2012) of rows scaled to length 1, so that a few long rows (attention sinks) do "
    "not decide it; may be negative, chance 0"
)
RBF_CKA = "biased CKA of Gaussian kernels whose width is {} times the median distance"
#: Rows of a tile of the Gram matrices: a tile of one layer has as many squared.
TILE = 256


def linear_cka(x: Any, y: Any) -> Metric:
    """Biased linear centred kernel alignment (Kornblith 2019), in [0, 1].

    Parameters
    ----------
    x : array, tensor or Layer, shape (n, D_x)
    y : array, tensor or Layer, shape (n, D_y)
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
    return cka_of(RowMoments(layer_of(x, "X"), layer_of(y, "Y")))


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
    return debiased_cka_of(RowMoments(layer_of(x, "X"), layer_of(y, "Y")))


def unit_row_cka(x: Any, y: Any) -> Metric:
    """Debiased linear CKA of rows scaled to length 1: every row weighs the same.

    Parameters
    ----------
    x : array, tensor or Layer, shape (n, D_x), n >= 4
    y : array, tensor or Layer, shape (n, D_y)
        The same rows in two models; widths may differ.

    Raises
    ------
    InputError
        On NaN rows, different numbers of rows, n < 4, or a side without variation.

    Notes
    -----
    :func:`debiased_linear_cka` of ``x_i / |x_i|``. Like cosine neighbours it is not translation-invariant. The first
    tokens of decoders can be a hundred times as long as all others: they alone then decide CKA of raw rows.

    Examples
    --------
    >>> x, y = np.random.RandomState(0).randn(2, 200, 16)
    >>> x[:2], y[:2] = 100, 100  # two rows that are long in both models; the others have nothing in common
    >>> print(f"{float(debiased_linear_cka(x, y)):.2f} {abs(float(unit_row_cka(x, y))):.2f}")
    1.00 0.00
    """
    return unit_cka_of(layer_of(x, "X"), layer_of(y, "Y"))


def unit_cka_of(a: Layer, b: Layer) -> Metric:
    """:func:`unit_row_cka` of prepared layers."""
    found = debiased_cka_of(RowMoments(unit_layer(a), unit_layer(b)))
    return replace(found, definition=UNIT_CKA, effective_rows=effective_rows(a, b))


def unit_layer(layer: Layer) -> Layer:
    """The layer's rows, before centring, scaled to length 1 and centred."""
    return Layer(unit_rows(layer.rows), layer.name, dtype=layer.centred.dtype)


def cka_of(pair: PairMoments) -> Metric:
    """:func:`linear_cka` from the moments of a pair, of rows or of sums alike."""
    a, b = pair.x, pair.y
    varies(a, b)
    scale = np.sqrt(a.self_square * b.self_square)
    chance = a.row_square_sum * b.row_square_sum / ((pair.n - 1) * scale)
    few = f"unrelated rows would give {chance:.2f} (few rows for the dimensions): use debiased CKA"
    return Metric(
        value=float(min(1.0, pair.cross_square / scale)),
        n=pair.n,
        definition=CKA,
        chance=float(chance),
        warnings=(*((few,) if chance > 0.5 else ()), *few_rows_carry(a, b)),
        effective_rows=effective_rows(a, b),
    )


def debiased_cka_of(pair: PairMoments) -> Metric:
    """:func:`debiased_linear_cka` from the moments of a pair, of rows or of sums alike."""
    a, b, n = pair.x, pair.y, pair.n
    varies(a, b)
    if n < 4:
        raise InputError(f"debiased CKA needs at least 4 rows, got {n}", where=pair.names)

    def unbiased(square: float, both: float, traces: float) -> float:
        """Unbiased HSIC up to ``1 / (n (n - 3))``: ``both`` sums the products of the Gram matrices' diagonals."""
        return square - both + traces / ((n - 1) * (n - 2)) - 2 * both / (n - 2)

    own_a, own_b = (
        unbiased(one.self_square, one.row_fourth_sum, one.row_square_sum * one.row_square_sum)
        for one in (a, b)
    )
    if own_a * own_b <= 0:
        raise InputError("too few rows to debias CKA (a self-similarity is not positive)", where=pair.names)
    shared = unbiased(pair.cross_square, pair.row_square_product, a.row_square_sum * b.row_square_sum)
    return Metric(
        value=float(shared / np.sqrt(own_a * own_b)),
        n=n,
        definition=DEBIASED_CKA,
        chance=0.0,
        warnings=few_rows_carry(a, b),
        effective_rows=effective_rows(a, b),
    )


def rbf_cka(x: Any, y: Any, *, width: float = 0.5) -> Metric:
    """Biased CKA of Gaussian kernels; forms two n x n matrices.

    Parameters
    ----------
    x : array, tensor or Layer, shape (n, D_x)
    y : array, tensor or Layer, shape (n, D_y)
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
    a, b = layer_of(x, "X"), layer_of(y, "Y")
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


def gram_is_cheaper(rows: int, a: Sequence[Layer], b: Sequence[Layer]) -> bool:
    """Whether tiles of n x n Gram matrices cost less than one D x D product a pair of layers.

    Gram: ``n^2 D / 2`` products a layer (half of a symmetric matrix) and ``n^2 / 2`` a pair; covariance: ``n D^2`` a
    pair. With L layers a side of width D, Gram wins while n is below about ``L D / 2``.
    """
    layers, pairs = len(a) + len(b), len(a) * len(b)
    width = sum(layer.width for layer in (*a, *b)) / layers
    return rows * (layers * width + layers**2) / 2 < pairs * width**2


def cka_map(a: Sequence[Layer], b: Sequence[Layer], *, gram: bool | None = None) -> np.ndarray:
    """Biased linear CKA of every pair of layers.

    Parameters
    ----------
    a, b : sequence of Layer
        The same n rows in two models.
    gram : bool, optional
        The form; absent: the cheaper one. Both are exact and give the same numbers.

    Returns
    -------
    array, shape (len(a), len(b)), float64
        NaN where a layer does not vary.

    Notes
    -----
    ``|Xc'Yc|_F^2 = <K, L>`` with ``K = Xc Xc'`` and ``L = Yc Yc'``. The Gram form visits tiles (I, J), I <= J, of all
    Gram matrices at once, stacks them as vectors and adds the products of the stack with itself; it holds
    (len(a) + len(b)) tiles, whatever n.
    """
    if gram is None:
        gram = gram_is_cheaper(len(a[0]), a, b)
    if gram:
        products = inner_products([*a, *b])
        cross, own = products[: len(a), len(a) :], np.diagonal(products)
    else:
        cross = np.array([[frobenius_square(x.cross(y)) for y in b] for x in a])
        own = np.array([layer.self_square for layer in (*a, *b)])
    still = np.array([layer.constant.all() for layer in (*a, *b)])
    norms = np.sqrt(np.where(still, np.nan, own))
    return np.minimum(cross / np.outer(norms[: len(a)], norms[len(a) :]), 1.0)


def unit_cka_map(a: Sequence[Layer], b: Sequence[Layer]) -> np.ndarray:
    """:func:`unit_row_cka` of every pair of layers.

    Parameters
    ----------
    a, b : sequence of Layer
        The same n >= 4 rows in two models.

    Returns
    -------
    array, shape (len(a), len(b)), float64
        NaN where a layer does not vary, or too few rows debias it.

    Notes
    -----
    :func:`inner_products` of rows that are scaled and centred a tile at a time, and not kept; debiasing needs the
    products of the Gram matrices' diagonals beside them.
    """
    layers = [_UnitRows(layer) for layer in (*a, *b)]
    squares = np.array([layer.row_squares for layer in layers])
    n, both, traces = squares.shape[1], squares @ squares.T, squares.sum(axis=1)
    if n < 4:
        return np.full((len(a), len(b)), np.nan)
    unbiased = inner_products(layers) - both * n / (n - 2) + np.outer(traces, traces) / ((n - 1) * (n - 2))
    own = np.diagonal(unbiased)
    norms = np.sqrt(np.where((own > 0) & (traces > n * 1e-12), own, np.nan))
    return unbiased[: len(a), len(a) :] / np.outer(norms[: len(a)], norms[len(a) :])


class _UnitRows:
    """Rows of a layer scaled to length 1 and centred when they are looked at."""

    def __init__(self, layer: Layer) -> None:
        self.rows, self.dtype = layer.rows, layer.centred.dtype
        norms = np.sqrt(np.einsum("nd,nd->n", self.rows, self.rows, dtype=np.float64))
        self.scale = 1 / np.maximum(norms, np.finfo(np.float64).tiny)
        self.mean = (self.scale @ self.rows) / len(self.rows)

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.rows)

    def tile(self, start: int, stop: int) -> np.ndarray:
        """Some of the rows."""
        part = slice(start, stop)
        return (self.rows[part] * self.scale[part, None] - self.mean).astype(self.dtype)

    @property
    def row_squares(self) -> np.ndarray:
        """Squared lengths of the centred rows, float64 (n,)."""
        pieces = (self.tile(i, i + TILE) for i in range(0, self.n, TILE))
        return np.concatenate([np.einsum("nd,nd->n", one, one, dtype=np.float64) for one in pieces])


def inner_products(layers: Sequence[Layer] | Sequence[_UnitRows]) -> np.ndarray:
    """``<K_i, K_j>`` of the centred Gram matrices of all layers, float64; the diagonal is ``|Xc'Xc|_F^2``."""
    n = layers[0].n
    found = np.zeros((len(layers), len(layers)))
    kind = np.result_type(*(layer.dtype for layer in layers))
    memory = np.empty((len(layers), min(TILE, n) ** 2), dtype=kind)
    for i in range(0, n, TILE):
        for j in range(i, n, TILE):
            rows, columns = min(TILE, n - i), min(TILE, n - j)
            stack = memory[:, : rows * columns]
            for tile, layer in zip(stack, layers, strict=True):
                left, right = layer.tile(i, i + TILE), layer.tile(j, j + TILE)
                product(left, right.T, out=tile.reshape(rows, columns))
            found += (1 if i == j else 2) * product(stack, stack.T)
    return found
