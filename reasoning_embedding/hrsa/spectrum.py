"""Spectral geometry of one model's features: effective rank and decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from reasoning_embedding.errors import InputError

from .result import Metric, as_rows

RANKME = {
    "sigma": "RankMe (Garrido 2023): exp entropy of the normalised singular values of the uncentred features",
    "lambda": "RankMe, eigenvalue variant: exp entropy of the normalised eigenvalues of the centred covariance",
}
ALPHA = "alpha-ReQ: minus the slope of ln eigenvalue on ln rank, weights 1/rank, ranks {}..{}"
_EPSILON = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AlphaReq(Metric):
    """Power-law decay of the covariance spectrum; `ranks` is the fitted range (1-based, inclusive)."""

    r2: float
    ranks: tuple[int, int]


def effective_rank(spectrum: np.ndarray) -> float:
    """``exp(-sum p ln p)`` with ``p = s / sum(s) + 1e-7``: d for a flat spectrum of length d."""
    spectrum = np.asarray(spectrum, dtype=np.float64)
    p = spectrum / spectrum.sum() + _EPSILON
    return float(np.exp(-(p * np.log(p)).sum()))


def eigenvalues(z: np.ndarray) -> np.ndarray:
    """Eigenvalues of the covariance of the centred rows, largest first; the ones that must be 0 are left out."""
    z = z.astype(np.float64)
    z = z - z.mean(axis=0)
    return (np.linalg.svd(z, compute_uv=False) ** 2 / (len(z) - 1))[: min(len(z) - 1, z.shape[1])]


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
    """
    rows = as_rows(z, "Z")
    if variant not in RANKME:
        raise InputError(f"unknown RankMe variant {variant!r}", todo=f"choose one of {', '.join(RANKME)}")
    spectrum = (
        np.linalg.svd(rows.astype(np.float64), compute_uv=False) if variant == "sigma" else eigenvalues(rows)
    )
    if spectrum.sum() <= 0:
        raise InputError("the features do not vary", where="Z", todo="give texts that differ")
    return Metric(
        value=effective_rank(spectrum),
        n=len(rows),
        definition=RANKME[variant],
        warnings=_few(len(rows), rows.shape[1]),
    )


def _few(n: int, d: int) -> tuple[str, ...]:
    return (f"{n} rows for {d} dimensions: the rank is bounded by the rows",) if n < d else ()


def fit_power_law(
    spectrum: np.ndarray, ranks: tuple[int, int] = (12, 100)
) -> tuple[float, float, tuple[int, int]]:
    """Alpha, R^2 and the range of ranks used; the range is cut to the positive part of the spectrum.

    Notes
    -----
    Weighted least squares of ``ln lambda`` on ``ln rank`` with weights ``1 / rank`` and a free intercept
    (Agrawal 2022); R^2 is weighted likewise. Ranks 12..100 as in arXiv 2509.23024; reptrix fits 6..100,
    fastssl 6..50.

    Raises
    ------
    InputError
        If fewer than three positive eigenvalues lie in the range.
    """
    spectrum = np.asarray(spectrum, dtype=np.float64)
    positive = int((spectrum > spectrum[0] * 1e-12).sum())
    low, high = ranks[0], min(ranks[1], positive)
    if high - low < 2:
        raise InputError(
            f"ranks {ranks[0]}..{ranks[1]} hold fewer than 3 of the {positive} positive eigenvalues",
            todo="give more texts or a lower range of ranks",
        )
    rank = np.arange(low, high + 1)
    x, y, weight = np.log(rank), np.log(spectrum[low - 1 : high]), 1 / rank
    x_mean, y_mean = np.average(x, weights=weight), np.average(y, weights=weight)
    slope = (weight * (x - x_mean) * (y - y_mean)).sum() / (weight * (x - x_mean) ** 2).sum()
    total = (weight * (y - y_mean) ** 2).sum()
    unexplained = (weight * (y - y_mean - slope * (x - x_mean)) ** 2).sum()
    return -float(slope), float(1 - unexplained / total) if total > 0 else 1.0, (low, high)


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
        On NaN rows or fewer than three eigenvalues in the range.
    """
    rows = as_rows(z, "Z")
    alpha, r2, used = fit_power_law(eigenvalues(rows), ranks)
    warnings = list(_few(len(rows), rows.shape[1]))
    if used != tuple(ranks):
        warnings.append(f"ranks {ranks[0]}..{ranks[1]} asked for, {used[0]}..{used[1]} fitted")
    return AlphaReq(
        value=alpha, n=len(rows), definition=ALPHA.format(*used), warnings=tuple(warnings), r2=r2, ranks=used
    )
