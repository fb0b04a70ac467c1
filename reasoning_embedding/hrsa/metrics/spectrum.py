"""Spectral geometry of one model's features: effective rank, decay, and whether all directions are used alike."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from reasoning_embedding.errors import InputError

from .linear_algebra import eigvalsh, small_gram
from .nearest import unit_rows
from .result import Metric, as_rows

RANKME = {
    "sigma": "RankMe (Garrido 2023): exp entropy of the normalised singular values of the uncentred features",
    "lambda": "RankMe, eigenvalue variant: exp entropy of the normalised eigenvalues of the centred covariance",
}
ALPHA = "alpha-ReQ: minus the slope of ln eigenvalue on ln rank, weights 1/rank, ranks {}..{}"
PARTICIPATION = "participation ratio of the eigenvalues of the centred covariance: (sum l)^2 / sum l^2"
ISOSCORE = "IsoScore (Rudman 2022): 0 = all variance in one direction, 1 = the same in all"
MEAN_COSINE = "mean cosine of two different rows, uncentred: 0 = no common direction, 1 = all rows on one ray"
_EPSILON = 1e-7
#: An R^2 below this is not called a straight line.
_STRAIGHT = 0.9


class PowerLaw(NamedTuple):
    """A fitted decay: exponent, weighted R^2, and the ranks used (1-based, inclusive)."""

    alpha: float
    r2: float
    ranks: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AlphaReq(Metric):
    """Power-law decay of the covariance spectrum.

    Parameters
    ----------
    r2 : float
        Weighted R^2 of the fit.
    ranks : (int, int)
        The fitted range, 1-based and inclusive.
    windows : tuple of PowerLaw
        The same fit on each doubling of the rank within the range (12..24, 24..48, and the rest, 48..100): of a
        power law all exponents are equal.
    """

    r2: float
    ranks: tuple[int, int]
    windows: tuple[PowerLaw, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Isotropy(Metric):
    """Isotropy of features; `value` is IsoScore.

    Parameters
    ----------
    mean_cosine : float
        Mean cosine over all pairs of different rows, the field's "anisotropy" (Ethayarajh 2019).
    mean_cosine_definition : str
        What that is.
    """

    mean_cosine: float
    mean_cosine_definition: str


def effective_rank(spectrum: np.ndarray) -> float:
    """``exp(-sum p ln p)`` with ``p = s / sum(s) + 1e-7``: d for a flat spectrum of length d.

    Examples
    --------
    >>> eigenvalues = 1 / np.arange(1, 1025)
    >>> print(f"{effective_rank(np.sqrt(eigenvalues)):.1f} {effective_rank(eigenvalues):.1f}")
    805.6 182.5
    """
    spectrum = np.asarray(spectrum, dtype=np.float64)
    p = spectrum / spectrum.sum() + _EPSILON
    return float(np.exp(-(p * np.log(p)).sum()))


def eigenvalues(z: np.ndarray, *, centred: bool = True) -> np.ndarray:
    """Eigenvalues of the covariance of the rows, largest first; the ones that must be 0 are left out.

    Notes
    -----
    Of the smaller of Z'Z and ZZ' in float64, several times faster than singular values of Z. Eigenvalues below
    1e-16 of the largest are rounding.
    """
    z = z.astype(np.float64)
    if centred:
        z = z - z.mean(axis=0)
    rank = min(len(z) - centred, z.shape[1])
    return np.maximum(eigvalsh(small_gram(z))[::-1], 0)[:rank] / (len(z) - 1)


def rankme(z: Any, variant: Literal["sigma", "lambda"] = "sigma") -> Metric:
    """Effective rank of features; compare only at equal n.

    Parameters
    ----------
    z : array or tensor, shape (n, D)
        Features of n texts.
    variant : {"sigma", "lambda"}
        Singular values of the uncentred features (Garrido 2023), or eigenvalues of the centred
        covariance. They differ widely: name the variant with every number.

    Raises
    ------
    InputError
        On NaN rows, an unknown variant, or features without variation.

    Examples
    --------
    >>> z = np.random.RandomState(0).randn(300, 256)
    >>> print(f"{float(rankme(z)):.0f} {float(rankme(z, 'lambda')):.0f}")
    217 166
    """
    if variant not in RANKME:
        raise InputError(f"unknown RankMe variant {variant!r}", todo=f"choose one of {', '.join(RANKME)}")
    rows = _features(z)
    return rankme_of(eigenvalues(rows, centred=variant == "lambda"), *rows.shape, variant)


def rankme_of(
    values: np.ndarray, n: int, width: int, variant: Literal["sigma", "lambda"] = "sigma"
) -> Metric:
    """:func:`rankme` from eigenvalues of n rows of `width` dimensions: uncentred for "sigma", else centred."""
    return Metric(
        value=effective_rank(np.sqrt(values) if variant == "sigma" else values),
        n=n,
        definition=RANKME[variant],
        warnings=_few(n, width),
    )


def participation_ratio(z: Any) -> Metric:
    """Count the dimensions that share the variance: 1 for a line, D for a round cloud; compare only at equal n.

    Parameters
    ----------
    z : array or tensor, shape (n, D)
        Features of n texts.

    Raises
    ------
    InputError
        On NaN rows or features without variation.

    Notes
    -----
    ``(sum_i l_i)^2 / sum_i l_i^2`` over eigenvalues l of the centred covariance (Gao et al. 2017). A round cloud
    of D dimensions gives about ``n D / (n + D)``.

    Examples
    --------
    >>> print(f"{float(participation_ratio(np.random.RandomState(0).randn(5000, 16))):.1f}")
    15.9
    """
    rows = _features(z)
    return participation_of(eigenvalues(rows), *rows.shape)


def participation_of(values: np.ndarray, n: int, width: int) -> Metric:
    """:func:`participation_ratio` from the eigenvalues of the centred covariance."""
    value = float(values.sum() ** 2 / np.square(values).sum())
    return Metric(value=value, n=n, definition=PARTICIPATION, warnings=_few(n, width))


def isotropy(z: Any) -> Isotropy:
    """IsoScore, and the mean cosine of two rows: the two numbers the field calls isotropy.

    Parameters
    ----------
    z : array or tensor, shape (n, D), D >= 2
        Features of n texts.

    Raises
    ------
    InputError
        On NaN rows, D = 1, features without variation, or fewer than two rows that are not zero.

    Notes
    -----
    IsoScore ignores the mean, the mean cosine is mostly about it. IsoScore's definition (normalised variances
    along principal axes, their defect from the unit vector, rescaled twice) is ``(PR - 1) / (D - 1)`` with PR the
    participation ratio. The mean cosine needs no sampling: over unit rows u it is
    ``(|sum u|^2 - n) / (n (n - 1))``.

    Examples
    --------
    >>> z = np.random.RandomState(0).randn(2000, 16)
    >>> found = isotropy(z + 2)
    >>> print(f"{found.value:.2f}, mean cosine {found.mean_cosine:.2f}; {isotropy(z).mean_cosine:.2f} at mean 0")
    0.99, mean cosine 0.81; -0.00 at mean 0
    """
    rows = as_rows(z, "Z").astype(np.float64)
    if rows.shape[1] < 2:
        raise InputError("isotropy needs at least 2 dimensions", where="Z")
    ratio = participation_ratio(rows)
    zero = int((~rows.any(axis=1)).sum())
    n, unit = len(rows) - zero, unit_rows(rows)
    if n < 2:
        raise InputError(
            "fewer than two rows are not zero, so there are no cosines", where="Z", todo="give more texts"
        )
    return Isotropy(
        value=(ratio.value - 1) / (rows.shape[1] - 1),
        n=len(rows),
        definition=ISOSCORE,
        warnings=(*ratio.warnings, *((f"{zero} rows are zero and have no cosine",) if zero else ())),
        mean_cosine=float((np.square(unit.sum(axis=0)).sum() - n) / (n * (n - 1))),
        mean_cosine_definition=MEAN_COSINE,
    )


def _features(z: Any) -> np.ndarray:
    rows = as_rows(z, "Z")
    if (rows == rows[0]).all():
        raise InputError("the features do not vary", where="Z", todo="give texts that differ")
    return rows


def _few(n: int, d: int) -> tuple[str, ...]:
    return (f"{n} rows for {d} dimensions: the rank is bounded by the rows",) if n < d else ()


def fit_power_law(spectrum: np.ndarray, ranks: tuple[int, int] = (12, 100)) -> PowerLaw:
    """Fit the exponent of a decaying spectrum; the range is cut to the positive part of the spectrum.

    Parameters
    ----------
    spectrum : array, shape (d,)
        Eigenvalues, largest first.
    ranks : (int, int)
        Ranks fitted, 1-based and inclusive.

    Raises
    ------
    InputError
        If the range does not begin at 1 or above, or holds fewer than three positive eigenvalues.

    Notes
    -----
    Weighted least squares of ``ln lambda`` on ``ln rank`` with weights ``1 / rank`` and a free intercept
    (Agrawal 2022); R^2 is weighted likewise. Ranks 12..100 as in arXiv 2509.23024; reptrix fits 6..100,
    fastssl 6..50.

    Examples
    --------
    >>> law = fit_power_law(np.arange(1, 201) ** -1.5)
    >>> print(f"{law.alpha:.3f} on ranks {law.ranks[0]}..{law.ranks[1]}")
    1.500 on ranks 12..100
    """
    spectrum = np.asarray(spectrum, dtype=np.float64)
    positive = int((spectrum > spectrum[0] * 1e-12).sum())
    low, high = ranks[0], min(ranks[1], positive)
    if low < 1 or high - low < 2:
        raise InputError(
            f"ranks {ranks[0]}..{ranks[1]} hold fewer than 3 of the {positive} positive eigenvalues",
            todo="give more texts or a lower range of ranks, from 1",
        )
    rank = np.arange(low, high + 1)
    x, y, weight = np.log(rank), np.log(spectrum[low - 1 : high]), 1 / rank
    x_mean, y_mean = np.average(x, weights=weight), np.average(y, weights=weight)
    slope = (weight * (x - x_mean) * (y - y_mean)).sum() / (weight * (x - x_mean) ** 2).sum()
    total = (weight * (y - y_mean) ** 2).sum()
    unexplained = (weight * (y - y_mean - slope * (x - x_mean)) ** 2).sum()
    return PowerLaw(-float(slope), float(1 - unexplained / total) if total > 0 else 1.0, (low, high))


def alpha_req(z: Any, ranks: tuple[int, int] = (12, 100)) -> AlphaReq:
    """Decay exponent of the covariance spectrum: ``lambda_i ~ i^-alpha``.

    Parameters
    ----------
    z : array or tensor, shape (n, D)
        Features of n texts.
    ranks : (int, int)
        Ranks fitted, 1-based and inclusive; the upper one is cut to the spectrum's length.

    Raises
    ------
    InputError
        On NaN rows, features without variation or fewer than three eigenvalues in the range.

    Notes
    -----
    :func:`fit_power_law` on the eigenvalues of the centred covariance, over the whole range and over windows.

    Examples
    --------
    >>> z = np.random.RandomState(0).randn(2000, 256) * np.arange(1, 257) ** -0.5
    >>> found = alpha_req(z)
    >>> print(f"{found.value:.2f}, R^2 {found.r2:.2f}; windows", [f"{w.alpha:.1f}" for w in found.windows])
    1.01, R^2 1.00; windows ['1.0', '1.0', '1.0']
    """
    rows = _features(z)
    return alpha_of(eigenvalues(rows), *rows.shape, ranks)


def alpha_of(values: np.ndarray, n: int, width: int, ranks: tuple[int, int] = (12, 100)) -> AlphaReq:
    """:func:`alpha_req` from the eigenvalues of the centred covariance."""
    law = fit_power_law(values, ranks)
    warnings = list(_few(n, width))
    if law.ranks != tuple(ranks):
        warnings.append(f"ranks {ranks[0]}..{ranks[1]} asked for, {law.ranks[0]}..{law.ranks[1]} fitted")
    if law.r2 < _STRAIGHT:
        warnings.append(f"R^2 {law.r2:.2f}: on these ranks the spectrum is no power law")
    low, high = law.ranks
    starts = [low * 2**i for i in range(64) if low * 2 ** (i + 1) <= high and (low > 1 or i)] or [low]
    return AlphaReq(
        value=law.alpha,
        n=n,
        definition=ALPHA.format(*law.ranks),
        warnings=tuple(warnings),
        r2=law.r2,
        ranks=law.ranks,
        windows=tuple(fit_power_law(values, window) for window in pairwise([*starts, high])),
    )
