"""``|Xc'Yc|_F^2`` of every pair of layers of two models, in the cheaper of its two exact forms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .layer import Layer, frobenius_square

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


def cross_squares(a: Sequence[Layer], b: Sequence[Layer], *, gram: bool | None = None) -> np.ndarray:
    """``|Xc'Yc|_F^2`` for every pair of layers.

    Parameters
    ----------
    a, b : sequence of Layer
        The same n rows in two models.
    gram : bool, optional
        The form; absent: the cheaper one. Both are exact and give the same numbers.

    Returns
    -------
    array, shape (len(a), len(b)), float64

    Notes
    -----
    ``|Xc'Yc|_F^2 = <K, L>`` with ``K = Xc Xc'`` and ``L = Yc Yc'``. The Gram form visits tiles (I, J), I <= J, of all
    Gram matrices at once, stacks them as vectors and adds the products of the stack with itself; it holds
    (len(a) + len(b)) tiles, whatever n.
    """
    if gram is None:
        gram = gram_is_cheaper(len(a[0]), a, b)
    if not gram:
        return np.array([[frobenius_square(x.cross(y)) for y in b] for x in a])
    return inner_products([*a, *b])[: len(a), len(a) :]


def inner_products(layers: Sequence[Layer]) -> np.ndarray:
    """``<K_i, K_j>`` of the centred Gram matrices of all layers, float64; the diagonal is ``|Xc'Xc|_F^2``."""
    n = len(layers[0])
    found = np.zeros((len(layers), len(layers)))
    kind = np.result_type(*(layer.centred for layer in layers))
    for i in range(0, n, TILE):
        for j in range(i, n, TILE):
            rows, columns = min(TILE, n - i), min(TILE, n - j)
            stack = np.empty((len(layers), rows * columns), dtype=kind)
            for tile, layer in zip(stack, layers, strict=True):
                np.matmul(
                    layer.centred[i : i + TILE],
                    layer.centred[j : j + TILE].T,
                    out=tile.reshape(rows, columns),
                )
            found += (1 if i == j else 2) * (stack @ stack.T)
    return found
