"""One layer's rows, and the work on them that every pair of layers reuses."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any

import numpy as np

from .linear_algebra import eigh, product, small_gram, upper_factor
from .nearest import TIE, Screening, can_screen, nearest_cosines
from .result import as_rows


class Layer:
    """Rows of one layer, centred once; norms, Gram matrix and neighbours are computed once.

    Parameters
    ----------
    rows : array or tensor, shape (n, D)
        Activations: one row a token or text.
    name : str
        What errors call it.
    dtype : numpy dtype
        Type of the centred rows. Means are always taken in float64, so float32 loses nothing to a large mean.
    """

    def __init__(self, rows: Any, name: str = "X", dtype: Any = np.float64) -> None:
        self.name = name
        self.rows = as_rows(rows, name)
        mean = self.rows.mean(axis=0, dtype=np.float64)
        self.centred = np.empty(self.rows.shape, dtype)
        np.subtract(self.rows, mean, out=self.centred, dtype=np.float64, casting="same_kind")
        # A column that never moves keeps a rounding residue of its mean; that is no variation.
        noise = np.finfo(self.rows.dtype).eps * np.abs(mean) * np.sqrt(len(self.rows))
        norms = np.sqrt(np.einsum("nd,nd->d", self.centred, self.centred, dtype=np.float64))
        self.constant = (norms <= 4 * noise) | (self.rows.min(axis=0) == self.rows.max(axis=0))
        self.centred[:, self.constant] = 0
        self.norms = np.where(self.constant, 0, norms)
        self._neighbours: dict[tuple[bytes, bool], tuple[np.ndarray, np.ndarray]] = {}
        self._screened: dict[tuple[bytes, bool], Screening] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.rows)

    @property
    def width(self) -> int:
        """Dimensions D."""
        return self.rows.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Type of the centred rows."""
        return self.centred.dtype

    def tile(self, start: int, stop: int) -> np.ndarray:
        """Some of the centred rows."""
        return self.centred[start:stop]

    @cached_property
    def row_squares(self) -> np.ndarray:
        """Squared norms of the centred rows, shape (n,), float64: the diagonal of the Gram matrix."""
        return np.einsum("nd,nd->n", self.centred, self.centred, dtype=np.float64)

    @property
    def row_square_sum(self) -> float:
        """``tr Xc'Xc``."""
        return float(self.row_squares.sum())

    @property
    def row_fourth_sum(self) -> float:
        """``sum_i |xc_i|^4``."""
        return float(self.row_squares @ self.row_squares)

    @cached_property
    def zero(self) -> np.ndarray:
        """Which rows are zero, shape (n,), bool: they have no direction, so no cosine."""
        return np.abs(self.rows).max(axis=1) == 0

    @cached_property
    def self_square(self) -> float:
        """Squared Frobenius norm of ``Xc'Xc``."""
        return frobenius_square(self.cross(self))

    def cross(self, other: Layer) -> np.ndarray:
        """``Xc'Yc``, shape (D_x, D_y): all that CKA, correlation and Procrustes need of a pair."""
        return product(self.centred.T, other.centred)

    @cached_property
    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Principal axes: variances (r,), largest first, and directions (D, r), float64; those of no variance left out."""
        x = self.centred.astype(np.float64)
        wide = len(x) < self.width  # then the n x n problem has the same eigenvalues
        squares, vectors = eigh(small_gram(x))
        kept = squares > max(x.shape) * np.finfo(np.float64).eps * squares[-1]
        squares, vectors = squares[kept][::-1], vectors[:, kept][:, ::-1]
        return squares / len(x), product(x.T, vectors) / np.sqrt(squares) if wide else vectors

    @cached_property
    def compact(self) -> np.ndarray:
        """Centred rows in the min(n, D) dimensions that hold them; ``|Xc'Yc|_*`` does not see the difference."""
        if len(self) >= self.width:
            return self.centred
        return upper_factor(self.centred.T.astype(np.float64)).T

    def neighbours(self, subset: np.ndarray, k: int, centred: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Nearest neighbours within `subset` by cosine, nearest first, and their cosines; kept for the next pair.

        Parameters
        ----------
        subset : array of int, shape (m,)
            Rows that take part; without duplicates, or ties decide.
        k : int
            1 <= k < m.
        centred : bool
            Take the mean off first.

        Returns
        -------
        array of int and array, shapes (m, k)
            Positions within `subset`, and cosines.
        """
        key = (_key(subset), centred)
        known = self._neighbours.get(key)
        if known is None or known[0].shape[1] < k:
            known = nearest_cosines((self.centred if centred else self.rows)[subset], k)
            self._neighbours[key] = known
        return known[0][:, :k], known[1][:, :k]

    def nearest(
        self, subset: np.ndarray, k: int, centred: bool = False, *, reach: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The sets of :meth:`neighbours`, in no order and for less: screened in float32, decided in float64.

        Parameters
        ----------
        subset, k, centred
            As :meth:`neighbours` takes them.
        reach : int, optional
            The largest `k` that will be asked for, so that it is screened once.

        Returns
        -------
        array of int, shape (m, k), and array of bool, shape (m,)
            Positions within `subset`, and whether the next row is as near as the last of them.
        """
        if (known := self._sorted(subset, k, centred, reach)) is None:
            return self._screening(subset, k, centred, reach).nearest(k)
        found, cosines = known
        tied = cosines[:, k - 1] - cosines[:, k] <= TIE if k < found.shape[1] else np.zeros(len(found), bool)
        return found[:, :k], tied

    def nearest_with_cosines(
        self, subset: np.ndarray, k: int, centred: bool = False, *, reach: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """:meth:`nearest`, and the float64 cosines with these rows, (m, k), in the place of ties."""
        if (known := self._sorted(subset, k, centred, reach)) is None:
            screening = self._screening(subset, k, centred, reach)
            return screening.nearest(k)[0], screening.cosines(k)
        return known[0][:, :k], known[1][:, :k]

    def _sorted(
        self, subset: np.ndarray, k: int, centred: bool, reach: int | None
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Sorted neighbours, one more than `k` where there is one, if they are known or cannot be screened."""
        more = min(max(k, reach or k) + 1, len(subset) - 1)
        known = self._neighbours.get((_key(subset), centred))
        if known is not None and known[0].shape[1] >= min(k + 1, more):
            return known
        return None if can_screen(self.width) else self.neighbours(subset, more, centred)

    def _screening(self, subset: np.ndarray, k: int, centred: bool, reach: int | None) -> Screening:
        key = (_key(subset), centred)
        known = self._screened.get(key)
        if known is None or known.reach < k:
            rows = (self.centred if centred else self.rows)[subset]
            known = self._screened[key] = Screening(rows, max(reach or k, k))
        return known

    def reordered(self, order: np.ndarray) -> Layer:
        """Return the same rows in another order; the work done so far goes along, so a null costs one pair each.

        Parameters
        ----------
        order : array of int, shape (n,)
            A permutation: row i of the result is row ``order[i]``.
        """
        twin = copy.copy(self)
        twin.rows, twin.centred = self.rows[order], self.centred[order]
        for name in ("row_squares", "compact", "zero"):
            if name in self.__dict__:
                twin.__dict__[name] = self.__dict__[name][order]
        position, every = np.argsort(order), _key(np.arange(len(self)))
        twin._neighbours = {
            (rows, centred): (position[found[order]].astype(found.dtype), cosines[order])
            for (rows, centred), (found, cosines) in self._neighbours.items()
            if rows == every
        }
        twin._screened = {
            (rows, centred): known.reordered(order)
            for (rows, centred), known in self._screened.items()
            if rows == every
        }
        return twin

    def taken(self, rows: np.ndarray) -> Layer:
        """Return some of the rows as a layer of their own; cosine neighbours known among them go along."""
        part = Layer(self.rows[rows], self.name, dtype=self.centred.dtype)
        if (known := self._neighbours.get((_key(rows), False))) is not None:
            part._neighbours[_key(np.arange(len(rows))), False] = known
        if (screened := self._screened.get((_key(rows), False))) is not None:
            part._screened[_key(np.arange(len(rows))), False] = screened
        return part


def layer_of(rows: Any, name: str) -> Layer:
    """A layer, prepared before or now; one that several pairs share keeps the work on it."""
    return rows if isinstance(rows, Layer) else Layer(rows, name)


def _key(rows: np.ndarray) -> bytes:
    return rows.astype(np.int64).tobytes()


def frobenius_square(matrix: np.ndarray) -> float:
    """Sum of squares in float64."""
    return float(np.einsum("ij,ij->", matrix, matrix, dtype=np.float64))


def distinct(rows: np.ndarray, tolerance: float = 1e-5) -> np.ndarray:
    """Indices of rows that repeat no earlier row, ascending.

    Equal contexts give equal states only up to rounding, so rows count as equal when no coordinate
    differs by more than `tolerance` times the root mean square of all coordinates. Candidates are
    neighbours in the order of a random projection, which costs n D + n log n.
    """
    direction = np.random.default_rng(0).standard_normal(rows.shape[1])
    scale = float(np.sqrt(np.mean(np.square(rows, dtype=np.float64))))
    order = np.argsort(rows @ direction, kind="stable")
    gaps = np.abs(np.diff(rows[order], axis=0)).max(axis=1) > tolerance * scale
    group = np.empty(len(rows), dtype=np.int64)
    group[order] = np.concatenate([[0], np.cumsum(gaps)])
    return np.sort(np.unique(group, return_index=True)[1])
