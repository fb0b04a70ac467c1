"""Is a value different, the same within a margin, or not known: two one-sided tests.

One test for all: of metrics and of scores, from resampled values, from runs, or from an estimate and its error. Two sources
of chance are kept apart. Runs: would other training runs differ as much? Student's t. Texts or queries: would others of
the same kind show the same? Resampled values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from reasoning_embedding.errors import InputError

from .seed_band import finite_values

#: Level of the tests.
ALPHA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivalence:
    """Two one-sided tests (TOST), and the test of a difference beside them.

    Parameters
    ----------
    estimate : float
        The difference, ratio or value tested.
    low, high : float
        Its interval at 1 - 2 alpha: within the margin exactly if the tests say so.
    confidence : (float, float)
        Its two-sided interval at 1 - alpha.
    margin : (float, float)
        What counts as no difference.
    p_value : float
        Of equivalence, the larger of `p_lower` and `p_upper`.
    p_lower, p_upper : float
        Against lying at or below the lower end of the margin, and at or above the upper.
    p_difference : float
        Two-sided, against no difference.
    alpha : float
        Level of all tests.
    method : str
        ``bootstrap``, ``paired t``, ``Welch t``, or what the caller says.
    n : int
        Replicates, or what was resampled, or runs a side (the smaller number).
    """

    estimate: float
    low: float
    high: float
    confidence: tuple[float, float]
    margin: tuple[float, float]
    p_value: float
    p_lower: float
    p_upper: float
    p_difference: float
    alpha: float
    method: str
    n: int

    @property
    def verdict(self) -> Literal["equivalent within margin", "different", "undecided"]:
        """Equivalence goes first: a difference may be certain and too small to matter."""
        if self.p_value < self.alpha:
            return "equivalent within margin"
        return "different" if self.p_difference < self.alpha else "undecided"

    @property
    def place(self) -> Literal["within", "beyond", "open"]:
        """Where the value lies by the margin alone, whether or not it differs from none.

        ``within``: both one-sided tests reject. ``beyond``: the whole of `confidence` lies outside. ``open``: neither is
        shown.
        """
        if self.p_value < self.alpha:
            return "within"
        outside = self.confidence[0] > self.margin[1] or self.confidence[1] < self.margin[0]
        return "beyond" if outside else "open"


def equivalence_of_replicates(
    estimate: float,
    replicates: np.ndarray,
    margin: float,
    *,
    ratio: bool = False,
    alpha: float = ALPHA,
    n: int | None = None,
) -> Equivalence:
    """Test from bootstrap replicates whether a difference or ratio is none.

    Parameters
    ----------
    estimate : float
        The difference or the ratio.
    replicates : array, shape (B,)
        Of the same quantity, such as ``a.interval.replicates - b.interval.replicates`` of one seed.
    margin : float
        Differences below it count as none, > 0; ratios between 1 / margin and margin, > 1. Chosen before the
        values are seen: a seed band is no margin, since few seeds make it wide and anything equivalent.
    ratio : bool
        Whether `estimate` is a ratio.
    alpha : float
        Level, in (0, 0.5).
    n : int, optional
        How many texts or queries were resampled, for the record; default: the replicates.

    Raises
    ------
    InputError
        For fewer than two replicates, values that are not finite, or a margin that is none.

    Notes
    -----
    ``p_lower = (1 + #{r <= low}) / (1 + B)``, ``p_upper = (1 + #{r >= high}) / (1 + B)`` (Schuirmann 1987; Efron
    and Tibshirani 1993, chapter 16). With few texts or queries (below about 30) percentile intervals are too short.

    Examples
    --------
    >>> differences = 0.01 * np.random.RandomState(0).randn(2000) + 0.005
    >>> equivalence_of_replicates(0.005, differences, margin=0.05).verdict
    'equivalent within margin'
    >>> equivalence_of_replicates(0.105, differences + 0.1, margin=0.05).verdict
    'different'
    """
    found = np.sort(finite_values(replicates, "replicates"))
    size = len(found)
    return _decide(
        estimate,
        lambda bound: (1 + float(np.searchsorted(found, bound, side="right"))) / (1 + size),
        lambda bound: (1 + float(size - np.searchsorted(found, bound, side="left"))) / (1 + size),
        lambda share: float(np.quantile(found, share)),
        _bounds(margin, ratio),
        alpha=alpha,
        method="bootstrap",
        n=size if n is None else n,
    )


def equivalence_of_runs(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    margin: float,
    *,
    paired: bool = False,
    ratio: bool = False,
    alpha: float = ALPHA,
) -> Equivalence:
    """Test over runs whether two recipes give the same value of a metric.

    Parameters
    ----------
    a, b : sequence of float
        One value a run, at least two a side; positive for a ratio.
    margin : float
        Differences b - a below it count as none, > 0; ratios b / a between 1 / margin and margin, > 1.
    paired : bool
        Run i of both shares its seed; then the lengths are equal.
    ratio : bool
        Compare geometric means: the same tests on logarithms.
    alpha : float
        Level, in (0, 0.5).

    Raises
    ------
    InputError
        For too few runs, unequal lengths of pairs, ratios of values that are not positive, or a bad margin.

    Notes
    -----
    t tests of the mean difference with n - 1 degrees of freedom if paired, else Welch's (Biometrika 34, 1947).

    Examples
    --------
    >>> same = equivalence_of_runs([0.90, 0.91, 0.92], [0.91, 0.90, 0.92], margin=0.05)
    >>> print(same.verdict, f"(p = {same.p_value:.3f})")
    equivalent within margin (p = 0.002)
    """
    x, y = finite_values(a, "a"), finite_values(b, "b")
    bounds = _bounds(margin, ratio)
    if ratio and min(x.min(), y.min()) <= 0:
        raise InputError("a ratio needs positive values", where="a, b", todo="compare differences instead")
    if paired and len(x) != len(y):
        raise InputError(f"{len(x)} and {len(y)} runs", todo="pairs need the same seeds on both sides")
    x, y = (np.log(x), np.log(y)) if ratio else (x, y)
    return _decide_by_t(
        *_mean_difference(x, y, paired=paired),
        bounds,
        ratio=ratio,
        alpha=alpha,
        method="paired t" if paired else "Welch t",
        n=min(len(x), len(y)),
    )


def equivalence_of_estimate(
    estimate: float,
    error: float,
    degrees: float,
    margin: float,
    *,
    alpha: float = ALPHA,
    method: str = "t",
    n: int = 0,
) -> Equivalence:
    """Test a difference that is known with a standard error.

    Parameters
    ----------
    estimate, error : float
        The difference, and its standard error, >= 0.
    degrees : float
        Degrees of freedom of the error, > 0.
    margin : float
        Differences below it count as none, > 0.
    alpha : float
        Level, in (0, 0.5).
    method, n
        For the record.

    Raises
    ------
    InputError
        For a margin or degrees that are not positive, or a negative error.

    Notes
    -----
    ``p_lower = P(T > (d + margin) / se)`` tests ``difference <= -margin``, ``p_upper = P(T < (d - margin) / se)``
    tests ``difference >= margin``, and the p-value is the larger: Schuirmann, J. Pharmacokinet. Biopharm. 15
    (1987) 657; Lakens, Soc. Psychol. Personal. Sci. 8 (2017) 355. Without any spread the answer is certain.

    Examples
    --------
    >>> equivalence_of_estimate(0.1, 0.05, degrees=9, margin=0.5).place
    'within'
    """
    bounds = _bounds(margin, ratio=False)
    if degrees <= 0 or error < 0:
        raise InputError(f"degrees of freedom {degrees} and standard error {error}: need > 0 and >= 0")
    return _decide_by_t(estimate, error, degrees, bounds, ratio=False, alpha=alpha, method=method, n=n)


def _mean_difference(x: np.ndarray, y: np.ndarray, *, paired: bool) -> tuple[float, float, float]:
    """Mean of y (m,) less that of x (n,), its standard error, and its degrees of freedom.

    Paired: ``std(y - x) / sqrt(n)`` and n - 1. Else, with ``v = s^2 / n`` of each, ``sqrt(v_x + v_y)`` and
    Satterthwaite's ``(v_x + v_y)^2 / (v_x^2 / (n - 1) + v_y^2 / (m - 1))`` (Welch, Biometrika 34, 1947).
    """
    if paired:
        differences = y - x
        error = float(differences.std(ddof=1) / np.sqrt(len(x)))
        return float(differences.mean()), error, float(len(x) - 1)
    parts = np.array([x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)])
    variance, spread = parts.sum(), (parts**2 / (len(x) - 1, len(y) - 1)).sum()
    degrees = float(variance**2 / spread) if spread else float(len(x) + len(y) - 2)
    return float(y.mean() - x.mean()), float(np.sqrt(variance)), degrees


def _decide_by_t(
    difference: float,
    error: float,
    degrees: float,
    bounds: tuple[float, float, float],
    *,
    ratio: bool,
    alpha: float,
    method: str,
    n: int,
) -> Equivalence:
    """Run the tests of a difference with a standard error, or of the ratio whose logarithm it is."""
    forward, back = (np.log, np.exp) if ratio else (float, float)

    def below(distance: float) -> float:
        """Chance that Student's t, times the error, lies below; certain where the error is 0."""
        return float(stdtr(degrees, distance / error)) if error else float(np.heaviside(distance, 0.5))

    def quantile(share: float) -> float:
        # Those of a share and of the rest are exact opposites.
        t = stdtrit(degrees, share) if share >= 0.5 else -stdtrit(degrees, 1 - share)
        return float(back(difference + t * error))

    return _decide(
        float(back(difference)),
        lambda bound: below(float(forward(bound)) - difference),
        lambda bound: below(difference - float(forward(bound))),
        quantile,
        bounds,
        alpha=alpha,
        method=method,
        n=n,
    )


def _decide(
    estimate: float,
    below: Callable[[float], float],
    above: Callable[[float], float],
    quantile: Callable[[float], float],
    bounds: tuple[float, float, float],
    *,
    alpha: float,
    method: str,
    n: int,
) -> Equivalence:
    """Run the tests from the chances that the quantity lies at or below, or at or above, a bound."""
    if not 0 < alpha < 0.5:
        raise InputError(f"a test's level lies in (0, 0.5), not at {alpha}")
    low, high, none = bounds
    p_lower, p_upper = below(low), above(high)
    return Equivalence(
        estimate=float(estimate),
        low=quantile(alpha),
        high=quantile(1 - alpha),
        confidence=(quantile(alpha / 2), quantile(1 - alpha / 2)),
        margin=(low, high),
        p_value=max(p_lower, p_upper),
        p_lower=p_lower,
        p_upper=p_upper,
        p_difference=min(1.0, 2 * min(below(none), above(none))),
        alpha=alpha,
        method=method,
        n=n,
    )


def _bounds(margin: float, ratio: bool) -> tuple[float, float, float]:
    """The margin's ends, and "no difference"."""
    if not (np.isfinite(margin) and margin > (1 if ratio else 0)):
        raise InputError(
            f"no {'ratio' if ratio else 'difference'} lies within a margin of {margin}",
            where="margin",
            todo="give a ratio above 1, such as 1.25" if ratio else "give a number above 0",
        )
    return (1 / margin, margin, 1.0) if ratio else (-margin, margin, 0.0)
