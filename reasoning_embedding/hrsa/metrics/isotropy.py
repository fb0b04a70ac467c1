"""Spectral geometry of one model's features: do they use all directions alike?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reasoning_embedding.errors import InputError

from .layer import unit_rows
from .result import Metric, as_rows
from .spectrum import participation_ratio

ISOSCORE = "IsoScore (Rudman 2022): 0 = all variance in one direction, 1 = the same in all"
MEAN_COSINE = "mean cosine of two different rows, uncentred: 0 = no common direction, 1 = all rows on one ray"


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
