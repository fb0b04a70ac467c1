"""Level 2, geometry: distances between two clouds of rows, up to rotation or up to what a readout can use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.moments import RowMoments

from .layer import Layer, layer_of
from .linear_algebra import eigvalsh, product, small_gram
from .result import Metric, same_rows, varies

PROCRUSTES_DISTANCE = (
    "Procrustes distance of centred rows of unit Frobenius norm: 2 - 2 |X'Y|_*; 0 = equal up to rotation and "
    "scale"
)
GULP = (
    "GULP (Boix-Adsera 2022), squared, lambda = {:g}, covariances of trace 1: squared gap between the predictions "
    "of two ridge readouts, summed over orthonormal targets"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProcrustesDistance(Metric):
    """Procrustes distance; `value` is the form that ignores scale, in [0, 2].

    Parameters
    ----------
    raw : float
        ``|Xc|_F^2 + |Yc|_F^2 - 2 |Xc'Yc|_*``: squared, in the units of the activations.
    angular : float
        ``arccos(|Xc'Yc|_* / (|Xc|_F |Yc|_F))``, radians, in [0, pi / 2]; a metric in the strict sense.
    similarity : float
        The cosine of that angle.
    """

    raw: float
    angular: float
    similarity: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gulp(Metric):
    """GULP; `value` is the squared distance.

    Parameters
    ----------
    distance : float
        Its square root, which obeys the triangle inequality.
    degrees : (float, float)
        Effective dimensions of the two ridge readouts, ``tr(S (S + lambda I)^-1)``.
    """

    distance: float
    degrees: tuple[float, float]


def nuclear_norm(matrix: np.ndarray) -> float:
    """Sum of singular values, from the eigenvalues of ``M'M`` in float64: several times faster than the SVD.

    Notes
    -----
    Singular values below 1e-8 of the largest are lost in rounding; they add less than 1e-8 D of it.
    """
    return float(np.sqrt(np.maximum(eigvalsh(small_gram(matrix.astype(np.float64))), 0)).sum())


def procrustes_distance(x: Any, y: Any) -> ProcrustesDistance:
    """Distance that is left between two clouds of rows after the best rotation.

    Parameters
    ----------
    x : array, tensor or Layer, shape (n, D_x)
    y : array, tensor or Layer, shape (n, D_y)
        The same rows in two models; the narrower one counts as padded with zeros.

    Raises
    ------
    InputError
        On NaN rows, different numbers of rows, or a side without variation.

    Notes
    -----
    ``min_Q |XQ - Y|_F^2 = |X|_F^2 + |Y|_F^2 - 2 |X'Y|_*`` over orthogonal Q on centred rows (Schoenemann 1966;
    Williams et al. 2021, "Generalized shape metrics"). It has no chance level in closed form: ask for a null.

    Examples
    --------
    >>> x = np.random.RandomState(0).randn(100, 8)
    >>> turned = 3 * x @ np.linalg.qr(np.random.RandomState(1).randn(8, 8))[0]
    >>> print(f"{procrustes_distance(x, turned).value:.6f}")
    0.000000
    """
    a, b = layer_of(x, "X"), layer_of(y, "Y")
    same_rows(a.rows, b.rows)
    varies(a, b)
    # Of few rows n x n, with the same singular values.
    few = len(a) < max(a.width, b.width)
    cross = product(a.compact.T, b.compact) if few else a.cross(b)
    squares = float(np.square(a.norms).sum()), float(np.square(b.norms).sum())
    nuclear, scale = nuclear_norm(cross), float(np.sqrt(squares[0] * squares[1]))
    similarity = min(1.0, nuclear / scale)
    return ProcrustesDistance(
        value=2 - 2 * similarity,
        n=len(a),
        definition=PROCRUSTES_DISTANCE,
        warnings=few_rows(a, b),
        raw=max(0.0, squares[0] + squares[1] - 2 * nuclear),
        angular=float(np.arccos(similarity)),
        similarity=similarity,
    )


def few_rows(a: Layer, b: Layer) -> tuple[str, ...]:
    """Say when a rotation or a readout can fit anything, because dimensions outnumber rows."""
    width = max(a.width, b.width)
    if len(a) > width:
        return ()
    return (f"{len(a)} rows for {width} dimensions: unrelated rows look alike, compare with a null",)


def gulp(x: Any, y: Any, lam: float = 0.01) -> Gulp:
    """Gap between the predictions of ridge readouts of the same target from two models, over all targets.

    Parameters
    ----------
    x : array, tensor or Layer, shape (n, D_x)
    y : array, tensor or Layer, shape (n, D_y)
        The same rows in two models; widths may differ.
    lam : float
        Ridge, > 0, on covariances scaled to trace 1. Towards 0 any invertible linear map is ignored, and
        the distance is that of canonical correlations; large values look at the leading directions only.

    Raises
    ------
    InputError
        On NaN rows, different numbers of rows, a side without variation, or a ridge that is not positive.

    Notes
    -----
    ``T(X,X) + T(Y,Y) - 2 T(X,Y)``, ``T(X,Y) = tr(Sx^-1 Sxy Sy^-1 Sxy')``, ``Sx^-1 = (Cov(X) + lam I)^-1``
    (Boix-Adsera et al. 2022): the squared Hilbert-Schmidt norm of the difference of the two ridge smoothers, so no
    target of unit norm has a larger squared gap. Chance is the exact mean over permutations of the rows, where ``T(X,Y)`` is
    ``df_x df_y / (n - 1)`` with ``df = tr(Cov (Cov + lam I)^-1)``.

    Examples
    --------
    >>> x, y = np.random.RandomState(0).randn(2, 300, 8)
    >>> print(f"{float(gulp(x, 2 * x[:, ::-1])):.3f}")
    0.000
    >>> found = gulp(x, y)
    >>> print(f"{found.value:.1f}, by chance {found.chance:.1f}")
    13.3, by chance 13.3
    """
    return gulp_of(RowMoments(layer_of(x, "X"), layer_of(y, "Y")), lam)


def gulp_of(pair: RowMoments, lam: float = 0.01) -> Gulp:
    """:func:`gulp` from the moments of a pair of rows."""
    a, b = pair.x, pair.y
    if lam <= 0:
        raise InputError(f"the ridge must be positive, got {lam}", todo="give lam > 0, such as 0.01")
    varies(a, b)
    n = len(a)
    (shares_a, axes_a), (shares_b, axes_b) = ((v / v.sum(), p) for v, p in (a.axes, b.axes))
    scale = n * np.sqrt(a.axes[0].sum() * b.axes[0].sum())
    mixed = axes_a.T @ pair.cross.astype(np.float64) @ axes_b / scale
    shared = float(((mixed**2 / (shares_b + lam)) / (shares_a + lam)[:, None]).sum())
    own = [float(np.square(shares / (shares + lam)).sum()) for shares in (shares_a, shares_b)]
    degrees = [float((shares / (shares + lam)).sum()) for shares in (shares_a, shares_b)]
    value = max(0.0, own[0] + own[1] - 2 * shared)
    return Gulp(
        value=value,
        n=n,
        definition=GULP.format(lam),
        chance=max(0.0, own[0] + own[1] - 2 * degrees[0] * degrees[1] / (n - 1)),
        warnings=few_rows(a, b),
        distance=float(np.sqrt(value)),
        degrees=(degrees[0], degrees[1]),
    )
