"""Is the difference of two models' scores large, small, or not known: intervals and equivalence tests.

Two sources of chance are kept apart. Seeds: would other training runs differ as much? A t statistic over
runs. Queries: would other queries of the same kind show the same? A paired bootstrap over queries.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from reasoning_embedding.hrsa.uncertainty.equivalence import mean_difference, student_below

#: Level of the tests; intervals cover 1 - ALPHA.
ALPHA = 0.05
#: Values a chunk of a bootstrap holds in memory.
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Comparison:
    """A difference with its interval, and its equivalence test against a margin.

    Parameters
    ----------
    difference : float
        Variant minus base, in the unit of the scores.
    low, high : float
        Two-sided interval of 1 - :data:`ALPHA`.
    margin : float
        Differences nearer to zero than this count as none, same unit, > 0.
    p_value : float
        Of the two one-sided tests, the larger: the smallest level at which they show ``|difference| < margin``.
    method : str
        ``paired t``, ``Welch t`` or ``bootstrap``.
    n : int
        Seeds a model (the smaller number) or queries.
    """

    difference: float
    low: float
    high: float
    margin: float
    p_value: float
    method: str
    n: int

    @property
    def verdict(self) -> str:
        """``within``, ``beyond`` or ``open``.

        ``within`` the margin: both one-sided tests reject at :data:`ALPHA`. ``beyond`` it: the whole interval
        lies outside. ``open``: neither is shown.
        """
        if self.p_value < ALPHA:
            return "within"
        return "beyond" if self.low > self.margin or self.high < -self.margin else "open"


def mean_std(values: ArrayLike) -> tuple[float, float | None]:
    """Return mean and sample standard deviation over seeds.

    Parameters
    ----------
    values : array_like, shape (n,)
        One score a seed, n >= 1.

    Returns
    -------
    tuple of float
        Mean, and standard deviation; None for one value, which has no spread.

    Raises
    ------
    ValueError
        If there is no value.

    Notes
    -----
    ``s^2 = sum_i (x_i - mean)^2 / (n - 1)`` (``ddof=1``): the unbiased variance of the population of seeds.
    """
    array = _finite(values)
    return float(array.mean()), float(array.std(ddof=1)) if array.size > 1 else None


def tost(
    difference: float, standard_error: float, degrees: float, margin: float, *, method: str = "t", n: int = 0
) -> Comparison:
    """Two one-sided t-tests of equivalence, from a difference and its standard error.

    Parameters
    ----------
    difference, standard_error : float
        In the unit of the scores; the error is >= 0.
    degrees : float
        Degrees of freedom, > 0.
    margin : float
        Equivalence margin, > 0.
    method, n
        For the record.

    Raises
    ------
    ValueError
        If the margin or the degrees are not positive, or the error is negative.

    Notes
    -----
    ``p_lower = P(T > (d + margin) / se)`` tests ``difference <= -margin``, ``p_upper = P(T < (d - margin) / se)``
    tests ``difference >= margin``, and the p-value is the larger: Schuirmann, J. Pharmacokinet. Biopharm. 15
    (1987) 657; Lakens, Soc. Psychol. Personal. Sci. 8 (2017) 355. Without any spread the answer is certain.
    """
    _check_margin(margin)
    if degrees <= 0 or standard_error < 0:
        raise ValueError(
            f"degrees of freedom {degrees} and standard error {standard_error}: need > 0 and >= 0"
        )
    p_lower = student_below(-difference - margin, standard_error, degrees)
    p_upper = student_below(difference - margin, standard_error, degrees)
    half = float(stdtrit(degrees, 1 - ALPHA / 2)) * standard_error
    return Comparison(
        difference, difference - half, difference + half, margin, max(p_lower, p_upper), method, n
    )


def paired_tost(base: ArrayLike, variant: ArrayLike, margin: float) -> Comparison:
    """Equivalence over seeds when run i of both models shares its seed, and so data and order.

    Parameters
    ----------
    base, variant : array_like, shape (n,)
        One score a seed, n >= 2.
    margin : float
        Equivalence margin, > 0, same unit.

    Raises
    ------
    ValueError
        If the lengths differ or n < 2.

    Notes
    -----
    :func:`tost` of the paired :func:`.hrsa.equivalence.mean_difference`.
    """
    a, b = _finite(base), _finite(variant)
    if a.shape != b.shape or a.size < 2:
        raise ValueError(f"{a.size} and {b.size} seeds: a paired test needs equal numbers, at least 2")
    return tost(*mean_difference(a, b, paired=True), margin, method="paired t", n=int(a.size))


def welch_tost(base: ArrayLike, variant: ArrayLike, margin: float) -> Comparison:
    """Equivalence over seeds when the runs of the models have no common seeds.

    Parameters
    ----------
    base, variant : array_like, shapes (n,) and (m,)
        One score a seed, n, m >= 2.
    margin : float
        Equivalence margin, > 0, same unit.

    Raises
    ------
    ValueError
        If n < 2 or m < 2.

    Notes
    -----
    :func:`tost` of the unpaired :func:`.hrsa.equivalence.mean_difference`, which is Welch's.
    """
    a, b = _finite(base), _finite(variant)
    if min(a.size, b.size) < 2:
        raise ValueError(f"{a.size} and {b.size} seeds: Welch's test needs at least 2 of each")
    return tost(*mean_difference(a, b, paired=False), margin, method="Welch t", n=int(min(a.size, b.size)))


def bootstrap_means(
    differences: Sequence[ArrayLike], keys: Sequence[str], *, draws: int = 5000, seed: int = 0
) -> NDArray[np.float64]:
    """Mean differences of tasks over resampled queries, all tasks in every draw.

    Parameters
    ----------
    differences : sequence of array_like, shapes (n_t,)
        Per task, variant minus base for each query: the models are resampled together, never apart.
    keys : sequence of str
        Which queries a task asks. Tasks of one key ask the same ones and get the same draw (as the short and
        the long documents of a benchmark do); others are drawn on their own.
    draws : int
        Resamples, > 0.
    seed : int
        Makes the draws; those of a task depend on it and on the key alone.

    Returns
    -------
    ndarray, shape (draws, tasks)
        A mean over tasks is taken within a row, so what tasks share is not averaged away.

    Raises
    ------
    ValueError
        If a task has no query, or two tasks of one key have different numbers of them.

    Notes
    -----
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 13; over queries in retrieval:
    Sakai, SIGIR 2006.
    """
    arrays = [_finite(values) for values in differences]
    means = np.empty((draws, len(arrays)))
    for key in dict.fromkeys(keys):
        members = [index for index, other in enumerate(keys) if other == key]
        sizes = {arrays[index].size for index in members}
        if len(sizes) != 1:
            raise ValueError(f"tasks with the same queries have {sorted(sizes)} of them")
        size = sizes.pop()
        rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
        rows = max(1, _CHUNK // size)
        for start in range(0, draws, rows):
            picked = rng.integers(0, size, (min(rows, draws - start), size))
            for index in members:
                means[start : start + len(picked), index] = arrays[index][picked].mean(axis=1)
    return means


def bootstrap_comparison(difference: float, samples: ArrayLike, margin: float, *, queries: int) -> Comparison:
    """Percentile interval and equivalence test from the resampled values of a difference.

    Parameters
    ----------
    difference : float
        As observed.
    samples : array_like, shape (draws,)
        The same quantity of each draw, such as ``bootstrap_means(...) @ weights``.
    margin : float
        Equivalence margin, > 0, same unit.
    queries : int
        How many were resampled, for the record.

    Notes
    -----
    Interval: the ALPHA / 2 and 1 - ALPHA / 2 quantiles. One-sided p-values ``(1 + #{d* <= -margin}) / (1 + draws)``
    and ``(1 + #{d* >= margin}) / (1 + draws)``, the larger counts: it is below ALPHA when the percentile interval
    of 1 - 2 ALPHA lies within the margin. With few queries (below about 30) percentile intervals are too short.
    """
    _check_margin(margin)
    values = _finite(samples)
    low, high = np.quantile(values, [ALPHA / 2, 1 - ALPHA / 2])
    outside = max(np.count_nonzero(values <= -margin), np.count_nonzero(values >= margin))
    p_value = (1 + int(outside)) / (1 + values.size)
    return Comparison(float(difference), float(low), float(high), margin, p_value, "bootstrap", queries)


def _check_margin(margin: float) -> None:
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"an equivalence margin is a finite number above 0, not {margin}")


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    if not array.size or not np.isfinite(array).all():
        raise ValueError("scores must be finite numbers, at least one")
    return array
