"""Heat maps: a number for every pair of layers of two models, with the work of one layer done once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .metrics.layer import Layer, frobenius_square
from .metrics.linear_algebra import product

#: Rows of a tile of the Gram matrices: a tile of one layer has as many squared.
TILE = 512


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


def correlation_map(a: Sequence[Layer], b: Sequence[Layer]) -> np.ndarray:
    """Dimension-wise correlation of every pair of layers of one width, float64 (len(a), len(b)).

    Notes
    -----
    With columns scaled to norm 1, the mean over dimensions of their correlations is the inner product of two
    layers as vectors, over D: one product of stacks. Dimensions constant on either side count on neither; NaN
    where none is left.
    """
    alive = [np.array([~layer.constant for layer in side], dtype=np.float64) for side in (a, b)]
    total = np.zeros((len(a), len(b)))
    for start in range(0, len(a[0]), TILE):
        stacks = [_unit_columns(side, slice(start, start + TILE)) for side in (a, b)]
        total += product(stacks[0], stacks[1].T)
    dimensions = alive[0] @ alive[1].T
    return np.divide(total, dimensions, out=np.full_like(total, np.nan), where=dimensions > 0)


def _unit_columns(layers: Sequence[Layer], rows: slice) -> np.ndarray:
    """Rows of layers whose columns have norm 1, constant ones 0, each layer as one vector."""
    scales = [
        np.where(layer.constant, 0.0, 1 / np.where(layer.constant, 1.0, layer.norms)) for layer in layers
    ]
    kind = layers[0].centred.dtype
    return np.stack(
        [
            (layer.centred[rows] * scale.astype(kind)).ravel()
            for layer, scale in zip(layers, scales, strict=True)
        ]
    )


def inner_products(layers: Sequence[Layer]) -> np.ndarray:
    """``<K_i, K_j>`` of the centred Gram matrices of all layers, float64; the diagonal is ``|Xc'Xc|_F^2``."""
    n = len(layers[0])
    found = np.zeros((len(layers), len(layers)))
    kind = np.result_type(*(layer.centred for layer in layers))
    memory = np.empty((len(layers), min(TILE, n) ** 2), dtype=kind)
    for i in range(0, n, TILE):
        for j in range(i, n, TILE):
            rows, columns = min(TILE, n - i), min(TILE, n - j)
            stack = memory[:, : rows * columns]
            for tile, layer in zip(stack, layers, strict=True):
                left, right = layer.centred[i : i + TILE], layer.centred[j : j + TILE]
                product(left, right.T, out=tile.reshape(rows, columns))
            found += (1 if i == j else 2) * product(stack, stack.T)
    return found
