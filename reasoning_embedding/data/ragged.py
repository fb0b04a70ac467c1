"""Lists of numbers of different lengths, held end to end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """Lists of different lengths, end to end.

    Parameters
    ----------
    values : ndarray of shape (total,)
        The lists, one after another.
    offsets : ndarray of int64, shape (n + 1,)
        List ``i`` is ``values[offsets[i]:offsets[i + 1]]``.
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_lengths(cls, values: np.ndarray, lengths: np.ndarray) -> Ragged:
        """Lists of (n,) lengths."""
        return cls(values, np.concatenate([[0], np.cumsum(lengths)]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Length of each list, int64 of shape (n,)."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> np.ndarray:
        """List of each value, int64 of shape (total,)."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def places(self, lists: np.ndarray) -> np.ndarray:
        """Return where the values of some lists stand in ``values``, list after list."""
        return ranges(self.offsets[lists], self._lengths_of(lists))

    def owners_within(self, lists: np.ndarray) -> np.ndarray:
        """Return for each of :meth:`places` which of these lists it is in, int32 from 0 to len(lists) - 1."""
        return np.repeat(np.arange(len(lists), dtype=np.int32), self._lengths_of(lists))

    def take(self, lists: np.ndarray) -> Ragged:
        """Return the lists at some indices."""
        return Ragged.from_lengths(self.values[self.places(lists)], self._lengths_of(lists))

    def _lengths_of(self, lists: np.ndarray) -> np.ndarray:
        return self.offsets[lists + 1] - self.offsets[lists]


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Concatenate ``arange(start, start + count)`` for every start and count."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)
