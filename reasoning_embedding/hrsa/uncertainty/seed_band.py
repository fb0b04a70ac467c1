"""What a change of seed does: the band of sibling runs that everything else is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from reasoning_embedding.errors import InputError

#: Fewer sibling runs than this make a band so wide that little lies outside.
_FEW = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedBand:
    """What runs that differ in nothing but the seed give: a prediction interval of one more such run.

    Parameters
    ----------
    mean, sd : float
        Of the values.
    low, high : float
        The band.
    n : int
        Values.
    level : float
        In (0, 1).
    warnings : tuple of str
        What makes it less than it seems.
    """

    mean: float
    sd: float
    low: float
    high: float
    n: int
    level: float
    warnings: tuple[str, ...] = ()

    def contains(self, value: float) -> bool:
        """Whether a value is one that a change of seed could give."""
        return self.low <= value <= self.high


def seed_band(values: Sequence[float] | np.ndarray, *, level: float = 0.95) -> SeedBand:
    """Band in which one more run with another seed would lie.

    Parameters
    ----------
    values : sequence of float, length n >= 2
        One value a run (or a pair of runs) that differ in the seed only.
    level : float
        In (0, 1).

    Raises
    ------
    InputError
        For fewer than two values, or values that are not finite.

    Notes
    -----
    ``mean +- t_(n-1) sd sqrt(1 + 1/n)``, the prediction interval of a normal sample; with n = 2 it is 22
    standard deviations to a side. Values of pairs that share a run are not independent: the band is then
    too narrow.

    Examples
    --------
    >>> band = seed_band([0.966, 0.969, 0.961, 0.970])
    >>> print(f"{band.low:.3f} to {band.high:.3f}", band.contains(0.968), band.contains(0.479))
    0.952 to 0.981 True False
    """
    found = finite_values(values, "values")
    mean, sd = float(found.mean()), float(found.std(ddof=1))
    half = float(stdtrit(len(found) - 1, (1 + level) / 2)) * sd * np.sqrt(1 + 1 / len(found))
    few = f"{len(found)} runs: the band is wide because few seeds were run, not because they differ"
    return SeedBand(
        mean=mean,
        sd=sd,
        low=float(mean - half),
        high=float(mean + half),
        n=len(found),
        level=level,
        warnings=(few,) if len(found) < _FEW else (),
    )


def finite_values(values: Sequence[float] | np.ndarray, where: str) -> np.ndarray:
    """Numbers as an array (n >= 2,), or an error that says what is wrong with them."""
    found = np.asarray(values, dtype=np.float64).ravel()
    if len(found) < 2 or not np.isfinite(found).all():
        raise InputError(
            f"expected two or more finite numbers, got {len(found)}, {int((~np.isfinite(found)).sum())} not finite",
            where=where,
            todo="run more seeds, or drop the runs without a value",
        )
    return found


def mean_std(values: Sequence[float] | np.ndarray) -> tuple[float, float | None]:
    """Return mean and sample standard deviation (``ddof=1``) of one value a seed; of one value it has none.

    Raises
    ------
    InputError
        If there is no value, or one is not finite.
    """
    found = np.asarray(values, dtype=np.float64).ravel()
    if not len(found) or not np.isfinite(found).all():
        raise InputError("the values must be finite numbers, at least one")
    return float(found.mean()), float(found.std(ddof=1)) if len(found) > 1 else None
