"""Level 1, representation: do the two models use the same axes?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reasoning_embedding.errors import InputError

from .layer import Layer
from .result import Metric, same_rows

CORRELATION = "mean over dimensions of the Pearson correlation of dimension j in X with dimension j in Y"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DimensionCorrelation(Metric):
    """Dimension-wise correlation; `per_dimension` (D,) holds NaN where a dimension is constant."""

    per_dimension: np.ndarray


def dimension_wise_correlation(x: Any, y: Any) -> DimensionCorrelation:
    """Mean Pearson correlation of each dimension with the same dimension of the other model.

    Parameters
    ----------
    x, y : array or tensor, shape (n, D)
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
    return correlation_of(Layer(x, "X"), Layer(y, "Y"))


def correlation_of(a: Layer, b: Layer, diagonal: np.ndarray | None = None) -> DimensionCorrelation:
    """:func:`dimension_wise_correlation` of prepared layers; `diagonal` = diagonal of ``Xc'Yc`` if known."""
    same_rows(a.rows, b.rows, width=True)
    if diagonal is None:
        diagonal = np.einsum("nd,nd->d", a.centred, b.centred, dtype=np.float64)
    dead = a.constant | b.constant
    if dead.all():
        raise InputError(
            "every dimension is constant on one side",
            where=f"{a.name} / {b.name}",
            todo="use rows that differ",
        )
    rho = np.full(a.width, np.nan)
    rho[~dead] = np.clip(diagonal[~dead] / (a.norms[~dead] * b.norms[~dead]), -1, 1)
    warnings = (f"{dead.sum()} of {a.width} dimensions are constant and left out",) if dead.any() else ()
    return DimensionCorrelation(
        value=float(rho[~dead].mean()),
        n=len(a),
        definition=CORRELATION,
        chance=0.0,
        warnings=warnings,
        per_dimension=rho,
    )
