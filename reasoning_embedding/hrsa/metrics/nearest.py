"""Nearest rows by cosine: sorted in float64, or screened in float32 and decided in float64 where that is too close."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from .linear_algebra import product

#: Cosines nearer than this are equal up to rounding in float64.
TIE = 1e-14
#: Neighbours that a screening keeps beyond those that are asked for: among them it finds who might belong to these.
_SPARE = 8
#: Of up to so many rows all cosines are held (float32 16 MiB, float64 32 MiB), and one half of them is computed.
_AT_ONCE = 2048
#: Pairs of rows whose cosines are computed at once in float64.
_PAIRS = 4096


def nearest_cosines(
    rows: np.ndarray, k: int, *, block: int = 512, at_once: int = _AT_ONCE
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the `k` nearest rows by cosine without the row itself, nearest first, and the cosines: both (n, k).

    In float64: states with one huge coordinate have cosines that differ in the seventh digit only. Of up to `at_once`
    rows all cosines are held and one half of them is computed, of more a block of rows at a time.
    """
    unit = unit_rows(rows)
    found, cosines = np.empty((len(rows), k), dtype=np.int32), np.empty((len(rows), k))
    for part, similarity in _similarities(unit, block, at_once):
        found[part], cosines[part] = largest(similarity, k)
    return found, cosines


class Screening:
    """The sets of nearest rows by cosine that :func:`nearest_cosines` finds, for less than its cost.

    Parameters
    ----------
    rows : array, shape (n, D)
        Without duplicates, or ties decide.
    reach : int
        Largest number of neighbours that will be asked for, 1 <= reach < n.

    Notes
    -----
    Cosines of all pairs are products in float32, and the largest of each row are kept. A product of D terms, whatever
    the order of its sums, is off by at most ``(D + 3) u / (1 - (D + 3) u)`` times ``sum_j |u_j v_j| <= 1``, ``u = 2^-24``:
    D from products and sums, 2 from rounding both rows, 1 to spare (Higham, Accuracy and Stability of Numerical
    Algorithms, 2002, section 3.1). So with s the k-th largest and e that bound, rows above ``s + 2 e`` are among the k
    nearest and rows below ``s - 2 e`` are not: in float64 only those between are compared, and all rows where they are
    more than were kept. Of equal cosines the row with the lower index is taken.
    """

    def __init__(self, rows: np.ndarray, reach: int) -> None:
        self.rows, self.reach = rows, reach
        self.margin = 2 * screening_error(rows.shape[1]) + 2 * TIE
        kept = min(reach + 1 + _SPARE, len(rows) - 1)
        self.places = np.empty((len(rows), kept), dtype=np.int32)
        self.values = np.empty((len(rows), kept), dtype=np.float32)
        for part, similarity in _similarities(unit_rows(rows).astype(np.float32)):
            self.places[part], self.values[part] = largest(similarity, kept)
        self._sets: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._cosines: dict[int, np.ndarray] = {}

    def nearest(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the `k` nearest rows of each row, in no order (n, k), and whether the next is as near, bool (n,)."""
        if k not in self._sets:
            self._sets[k] = self._decided(k)
        return self._sets[k]

    def cosines(self, k: int) -> np.ndarray:
        """Cosines of each row with its `k` nearest, as :meth:`nearest` has them, float64 (n, k)."""
        if k not in self._cosines:
            places, _ = self.nearest(k)
            own = np.repeat(np.arange(len(places)), k)
            self._cosines[k] = pair_cosines(self.rows, own, places.ravel()).reshape(places.shape)
        return self._cosines[k]

    def _decided(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        places, tied = self.places[:, :k].copy(), np.zeros(len(self.rows), dtype=bool)
        border = self.values[:, k - 1 : k].astype(np.float64)
        open_ = np.abs(self.values - border) <= self.margin
        kept = self.places.shape[1]
        # Where the last row kept may belong to the k nearest, so may rows that were not kept.
        beyond = open_[:, -1] & (kept < len(self.rows) - 1)
        close = np.flatnonzero((open_.sum(axis=1) > 1) & ~beyond)
        if len(close):
            open_, near = open_[close], self.places[close]
            exact = np.where(self.values[close] > border[close], np.inf, -np.inf)
            row, column = np.nonzero(open_)
            exact[row, column] = pair_cosines(self.rows, close[row], near[row, column])
            places[close], tied[close] = _largest_lowest(exact, near, k)
        for start in range(0, len(whole := np.flatnonzero(beyond)), 256):
            some = whole[start : start + 256]
            places[some], tied[some] = self._from_all(some, k)
        return places, tied

    def _from_all(self, some: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The `k` nearest of some rows among all."""
        unit = unit_rows(self.rows)
        exact = product(unit[some], unit.T)
        exact[np.arange(len(some)), some] = -np.inf
        every = np.broadcast_to(np.arange(len(unit), dtype=np.int32), exact.shape)
        return _largest_lowest(exact, every, k)

    def reordered(self, order: np.ndarray) -> Screening:
        """The same of the rows in another order: row i of the result is row ``order[i]``."""
        twin = object.__new__(Screening)
        twin.reach, twin.margin = self.reach, self.margin
        twin.rows, twin.values = self.rows[order], self.values[order]
        position = np.argsort(order).astype(np.int32)
        twin.places = position[self.places[order]]
        twin._sets = {k: (position[places[order]], tied[order]) for k, (places, tied) in self._sets.items()}
        twin._cosines = {k: cosines[order] for k, cosines in self._cosines.items()}
        return twin


def screening_error(width: int) -> float:
    """How far a float32 product of two unit rows of so many dimensions, rounded to float32, may be from their cosine."""
    terms = (width + 3) * 2.0**-24
    return terms / (1 - terms)


def can_screen(width: int) -> bool:
    """Whether float32 products are float32 here (torch may be told to round to bfloat16) and tell cosines apart."""
    return torch.get_float32_matmul_precision() == "highest" and screening_error(width) < 1e-2


def pair_cosines(rows: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosines of pairs of rows, given by two arrays of indices (m,), float64; 0 where a row is zero."""
    found = np.empty(len(left))
    for start in range(0, len(left), _PAIRS):
        part = slice(start, start + _PAIRS)
        found[part] = np.einsum("nd,nd->n", unit_rows(rows[left[part]]), unit_rows(rows[right[part]]))
    return found


def _largest_lowest(values: np.ndarray, places: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the `k` largest values of each row, of equal ones the lowest places; and whether the next is as large."""
    by_place = np.argsort(places, axis=1)
    values, places = (np.take_along_axis(each, by_place, axis=1) for each in (values, places))
    best = np.argsort(-values, axis=1, kind="stable")[:, : k + 1]
    ranked = np.take_along_axis(values, best, axis=1)
    near = np.isfinite(ranked[:, k - 1 :]).all(axis=1) & (ranked.shape[1] > k)
    tied = np.zeros(len(values), dtype=bool)
    tied[near] = ranked[near, k - 1] - ranked[near, -1] <= TIE
    return np.take_along_axis(places, best[:, :k], axis=1), tied


def _similarities(
    unit: np.ndarray, block: int = 512, at_once: int = _AT_ONCE
) -> Iterator[tuple[slice, np.ndarray]]:
    """Products of blocks of rows with all rows, minus infinity with themselves."""
    square = products(unit) if len(unit) <= at_once else None
    for start in range(0, len(unit), block):
        part = slice(start, start + block)
        similarity = product(unit[part], unit.T) if square is None else square[part]
        own = np.arange(len(similarity))
        similarity[own, own + start] = -np.inf
        yield part, similarity


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of norm 1 in float64; those that are zero stay so."""
    unit = rows.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return unit


def largest(similarity: np.ndarray, k: int, *, group: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Places and values of the `k` largest entries of each row (n, m), largest first: both (n, k).

    Notes
    -----
    Of many columns, the largest of each `group` first: the k largest entries lie in the k groups of the largest
    maxima, as every group with one of them has a maximum that only k - 1 others can exceed.
    """
    values = torch.from_numpy(similarity)
    columns = values.shape[1]
    whole = columns // group
    if k < 2 * group or whole < 2 * k:
        found, places = torch.topk(values, k, dim=1)  # twice as fast as numpy's partition
        return places.numpy(), found.numpy()
    # Groups are strided, so that their maxima are maxima of slices: group g holds columns g, g + whole, g + 2 whole, ...
    body = values[:, : whole * group].reshape(len(values), group, whole)
    groups = torch.topk(body.amax(dim=1), k, dim=1, sorted=False).indices
    candidates = (groups[:, None, :] + torch.arange(group)[None, :, None] * whole).reshape(len(values), -1)
    rest = torch.arange(whole * group, columns).expand(len(values), -1)
    candidates = torch.cat([candidates, rest], dim=1)
    found, places = torch.topk(torch.gather(values, 1, candidates), k, dim=1)
    return torch.gather(candidates, 1, places).numpy(), found.numpy()


def products(rows: np.ndarray, strip: int = 256) -> np.ndarray:
    """``XX'``: what lies right of the diagonal blocks is computed, what lies below them is copied."""
    found = np.empty((len(rows), len(rows)), rows.dtype)
    for start in range(0, len(rows), strip):
        part, rest = slice(start, start + strip), slice(start + strip, None)
        product(rows[part], rows[start:].T, out=found[part, start:])
        found[rest, part] = found[part, rest].T
    return found
