"""Level 1, representation: do the two models use the same axes?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.moments import PairMoments, RowMoments

from .layer import Layer, layer_of
from .linear_algebra import product
from .result import Metric, effective_rows, few_rows_carry, same_width

CORRELATION = "mean over dimensions of the Pearson correlation of dimension j in X with dimension j in Y"
#: Rows of all layers that a map of correlations takes at once.
_ROWS = 512


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DimensionCorrelation(Metric):
    """Dimension-wise correlation; `per_dimension` (D,) holds NaN where a dimension is constant."""

    per_dimension: np.ndarray


def dimension_wise_correlation(x: Any, y: Any) -> DimensionCorrelation:
    """Mean Pearson correlation of each dimension with the same dimension of the other model.

    Parameters
    ----------
    x, y : array, tensor or Layer, shape (n, D)
        The same rows in two models.

    Raises
    ------
    InputError
        On NaN rows, on sides that do not match, and when every dimension is constant.

    Notes
    -----
    ``rho_j = <x_j, y_j> / (|x_j| |y_j|)`` on centred columns (arXiv 2601.21192, section 3). Constant
    dimensions have no correlation; they are left out of the mean and named in a warning.

    Examples
    --------
    >>> x = np.random.RandomState(0).randn(100, 8)
    >>> print(f"{float(dimension_wise_correlation(x, 2 * x + 1)):.3f}")
    1.000
    """
    return correlation_of(RowMoments(layer_of(x, "X"), layer_of(y, "Y")))


def correlation_of(pair: PairMoments) -> DimensionCorrelation:
    """:func:`dimension_wise_correlation` from the moments of a pair, of rows or of sums alike."""
    a, b = pair.x, pair.y
    same_width(a.width, b.width)
    dead = a.constant | b.constant
    if dead.all():
        raise InputError(
            "every dimension is constant on one side", where=pair.names, todo="use rows that differ"
        )
    rho = np.full(a.width, np.nan)
    rho[~dead] = np.clip(pair.diagonal[~dead] / (a.norms[~dead] * b.norms[~dead]), -1, 1)
    warnings = (f"{dead.sum()} of {a.width} dimensions are constant and left out",) if dead.any() else ()
    return DimensionCorrelation(
        value=float(rho[~dead].mean()),
        n=pair.n,
        definition=CORRELATION,
        chance=0.0,
        warnings=(*warnings, *few_rows_carry(a, b)),
        effective_rows=effective_rows(a, b),
        per_dimension=rho,
    )


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
    for start in range(0, len(a[0]), _ROWS):
        stacks = [_unit_columns(side, slice(start, start + _ROWS)) for side in (a, b)]
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
