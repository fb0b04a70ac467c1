"""Level 1, representation: are the axes the same ones under other numbers?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from reasoning_embedding.errors import InputError

from .layer import layer_of
from .result import Metric, same_rows

MATCH = (
    "mean |Pearson correlation| of dimensions matched one to one for the largest sum (Hungarian algorithm)"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PermutationMatch(Metric):
    """Best one-to-one match of dimensions; `value` is the mean absolute correlation of matched dimensions.

    Parameters
    ----------
    permutation : array of int, shape (D_x,)
        Dimension of Y that each dimension of X is matched with; -1 where it has none.
    signs : array of int, shape (D_x,)
        Sign of their correlation; 0 where there is no match.
    unmatched : float or None
        The same mean with every dimension left where it is; None for different widths. `value` far above it
        means relabelled axes, both low means mixed axes.
    moved : float or None
        Share of the matched dimensions that are not matched with their own number; None for different widths.
    """

    permutation: np.ndarray
    signs: np.ndarray
    unmatched: float | None
    moved: float | None


def permutation_match(x: Any, y: Any) -> PermutationMatch:
    """Match the dimensions of two models one to one; tells relabelled axes from mixed ones.

    Parameters
    ----------
    x : array, tensor or Layer, shape (n, D_x)
    y : array, tensor or Layer, shape (n, D_y)
        The same rows in two models; at different widths the smaller number is matched.

    Raises
    ------
    InputError
        On NaN rows, different numbers of rows, or a side without variation.

    Notes
    -----
    Maximises ``sum_i |corr(x_i, y_p(i))|`` over one-to-one p (Li et al. 2016, "Convergent learning"; Kuhn 1955).
    The maximum over matches is above 0 for unrelated rows too, up to ``sqrt(2 ln D / n)``; a permutation
    null (:func:`~reasoning_embedding.hrsa.uncertainty.inference.with_inference`) gives its level. Constant
    dimensions take no part.

    Examples
    --------
    >>> x = np.random.RandomState(0).randn(200, 4)
    >>> found = permutation_match(x, -x[:, [2, 0, 3, 1]])
    >>> print(f"{found.value:.3f}", found.permutation.tolist(), found.signs.tolist())
    1.000 [1, 3, 0, 2] [-1, -1, -1, -1]
    """
    a, b = layer_of(x, "X"), layer_of(y, "Y")
    same_rows(a.rows, b.rows)
    first, second = np.flatnonzero(~a.constant), np.flatnonzero(~b.constant)
    if not (first.size and second.size):
        raise InputError(
            "every dimension is constant on one side",
            where=f"{a.name} / {b.name}",
            todo="use rows that differ",
        )
    cross = a.cross(b)
    rho = cross[np.ix_(first, second)] / np.outer(a.norms[first], b.norms[second])
    rows, columns = linear_sum_assignment(-np.abs(rho))
    permutation, signs = np.full(a.width, -1), np.zeros(a.width, dtype=int)
    permutation[first[rows]] = second[columns]
    signs[first[rows]] = np.where(rho[rows, columns] < 0, -1, 1)
    unmatched = moved = None
    if a.width == b.width:
        own = np.intersect1d(first, second)
        stayed = np.abs(cross[own, own] / (a.norms[own] * b.norms[own]))
        unmatched = float(np.minimum(stayed, 1).mean()) if own.size else None
        moved = float((first[rows] != second[columns]).mean())
    dead = max(a.width - first.size, b.width - second.size)
    return PermutationMatch(
        value=float(np.minimum(np.abs(rho[rows, columns]), 1).mean()),
        n=len(a),
        definition=MATCH,
        warnings=(f"{dead} of {max(a.width, b.width)} dimensions are constant and left out",) if dead else (),
        permutation=permutation,
        signs=signs,
        unmatched=unmatched,
        moved=moved,
    )
