"""What every metric takes and gives: checked rows in, a named number out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from reasoning_embedding.errors import InputError


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval over documents, and the level it holds at: of resampled or left-out documents, or of their halves.

    Parameters
    ----------
    low, high : float
        Its ends.
    level : float
        In (0, 1).
    replicates : array, shape (B,), or None
        Replicates about the estimate. Those of two metrics drawn with one seed over the same documents belong
        together: their difference, row by row, is the bootstrap of the difference.
    """

    low: float
    high: float
    level: float
    replicates: np.ndarray | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class NullTest:
    """A permutation test: the mean of the null, its standard deviation and ``p = (1 + #>=) / (1 + B)``.

    Of a distance, where small means similar, p counts the permutations that are as small or smaller. `value` and the
    null are of `rows` rows: documents of different lengths lose some, so that each row can take the place of another.
    """

    value: float
    mean: float
    sd: float
    p: float
    permutations: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Metric:
    """A number with what is needed to read it.

    Parameters
    ----------
    value : float
        The headline number; ``float(metric)`` gives it too.
    n : int
        Rows it was computed from.
    definition : str
        One sentence: which of the definitions in use this is.
    chance : float or None
        The value expected when the rows of the two sides have nothing to do with each other.
    warnings : tuple of str
        What makes the number less than it seems.
    interval : Interval or None
        How far it would move with other documents, where asked for.
    no_interval : str or None
        Why there is none, where one was asked for.
    null : NullTest or None
        Its permutation test, where asked for.
    effective_rows : float or None
        How many rows carry the variance, of the side that has fewer: ``(sum l)^2 / sum l^2`` of the squared lengths l
        of the centred rows, n where all are as long. Far fewer than n: a few long rows decide CKA, correlations and
        Procrustes.
    """

    value: float
    n: int
    definition: str
    chance: float | None = None
    warnings: tuple[str, ...] = ()
    interval: Interval | None = None
    no_interval: str | None = None
    null: NullTest | None = None
    effective_rows: float | None = None

    def __float__(self) -> float:
        return float(self.value)

    @property
    def row_values(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Where `value` is a mean over rows: the values averaged, and the rows of the input they belong to."""
        return None


def as_rows(rows: Any, name: str = "X") -> np.ndarray:
    """Return an array or tensor as a float array (n, D), or say what is wrong with it.

    Parameters
    ----------
    rows : array or tensor, shape (n, D)
        Any float or integer type; float32 stays float32, everything else becomes float64.
    name : str
        What errors call it, for instance the layer.

    Raises
    ------
    InputError
        If it is not two-dimensional, has fewer than two rows, or holds NaN or infinite values.
    """
    if hasattr(rows, "detach"):  # a tensor; numpy knows no bfloat16
        rows = rows.detach().cpu()
        rows = (rows if rows.dtype.itemsize == 8 else rows.float()).numpy()
    array = np.asarray(rows)
    array = array if array.dtype == np.float32 else array.astype(np.float64)
    if array.ndim != 2 or array.shape[0] < 2 or array.shape[1] < 1:
        raise InputError(
            f"expected rows of shape (n >= 2, D >= 1), got {array.shape}",
            where=name,
            todo="give one row a token or text",
        )
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad.size:
        raise InputError(
            f"{bad.size} of {len(array)} rows hold NaN or infinite values, the first is row {bad[0]}",
            where=name,
            todo="check the checkpoint (a diverged run?) or compute the activations in float32",
        )
    return array


def same_rows(x: np.ndarray, y: np.ndarray) -> None:
    """Refuse two models whose rows do not correspond.

    Raises
    ------
    InputError
        If the numbers of rows differ.
    """
    if len(x) != len(y):
        raise InputError(
            f"{len(x)} rows against {len(y)}",
            todo="both sides need the same tokens or texts in the same order",
        )


def same_width(x: int, y: int) -> None:
    """Refuse two numbers of dimensions that differ.

    Raises
    ------
    InputError
        If they do.
    """
    if x != y:
        raise InputError(
            f"{x} dimensions against {y}",
            todo="this metric matches dimensions; use CKA or k-NN overlap for models of different widths",
        )


class HasDimensions(Protocol):
    """A layer of rows, or of sums over rows."""

    @property
    def name(self) -> str:
        """What errors call it."""

    @property
    def constant(self) -> np.ndarray:
        """Which dimensions do not vary, bool (D,)."""


class HasRowSquares(Protocol):
    """A layer of rows, or of sums over rows, that knows how long its centred rows are."""

    @property
    def n(self) -> int:
        """Rows."""

    @property
    def row_square_sum(self) -> float:
        """Sum of the squared lengths."""

    @property
    def row_fourth_sum(self) -> float:
        """Sum of their squares."""


def effective_rows(*layers: HasRowSquares) -> float:
    """``(sum l)^2 / sum l^2`` of the squared lengths l of centred rows, of the layer where it is least; 0 of equal rows."""
    return min(
        one.row_square_sum**2 / one.row_fourth_sum if one.row_fourth_sum > 0 else 0.0 for one in layers
    )


def few_rows_carry(*layers: HasRowSquares) -> tuple[str, ...]:
    """Say where fewer than a tenth of the rows carry the variance."""
    found, n = effective_rows(*layers), layers[0].n
    if found >= n / 10:
        return ()
    return (
        f"{max(1, round(found))} of {n} rows carry the variance (attention sinks?): CKA, correlation and Procrustes "
        "measure those; read CKA of unit rows and k-NN overlap",
    )


def varies(*layers: HasDimensions) -> None:
    """Refuse layers whose rows are all equal: nothing can be compared with them.

    Raises
    ------
    InputError
        If there is one.
    """
    for layer in layers:
        if layer.constant.all():
            raise InputError(
                "all rows are equal, so the metric is not defined",
                where=layer.name,
                todo="use rows that differ",
            )
