"""Dealing the texts of a batch to ranks so that all get equal tokens."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

#: Swaps tried per rank before the deal is called as even as it gets.
_SWAPS = 8
#: Ranks this close to each other, relative to the mean, are even.
_EVEN = 0.002


def deal(lengths: np.ndarray, ranks: int) -> list[np.ndarray]:
    """Give each text to the rank with the fewest tokens so far, longest texts first; then swap to even out.

    Parameters
    ----------
    lengths : np.ndarray
        (n,) tokens of each text.
    ranks : int
        Number of ranks.

    Returns
    -------
    list of np.ndarray
        Indices of each rank's texts, ascending; together a permutation of ``range(n)``. Every rank
        computes the same deal, so nothing is exchanged.

    Notes
    -----
    Longest processing time first (Graham 1969), within 4/3 of the best possible; then the fullest and the
    emptiest rank swap the two texts, or move the one, that levels them best. With 8 texts a rank and more
    this leaves ranks within 2 % of each other (:func:`imbalance`), unless one text alone is more than a
    rank's share: a text is never cut.
    """
    if ranks == 1:
        return [np.arange(len(lengths))]
    heap = [(0, rank) for rank in range(ranks)]
    owner = np.empty(len(lengths), dtype=np.int64)
    for index in np.argsort(-lengths, kind="stable"):
        tokens, rank = heap[0]
        owner[index] = rank
        heapq.heapreplace(heap, (tokens + int(lengths[index]), rank))
    loads = np.bincount(owner, weights=lengths, minlength=ranks)
    for _ in range(_SWAPS * ranks):
        if not _level(lengths, owner, loads):
            break
    return [np.flatnonzero(owner == rank) for rank in range(ranks)]


def _level(lengths: np.ndarray, owner: np.ndarray, loads: np.ndarray) -> bool:
    """Move tokens from the fullest to the emptiest rank; say whether that was possible."""
    full, empty = int(np.argmax(loads)), int(np.argmin(loads))
    gap = loads[full] - loads[empty]
    if gap <= _EVEN * loads.mean():
        return False
    given = np.flatnonzero(owner == full)
    # Swapping for a text of no tokens is moving one.
    taken = np.concatenate([[-1], np.flatnonzero(owner == empty)])
    moved = lengths[given][:, None] - np.where(taken < 0, 0, lengths[taken])[None]
    best = int(np.abs(moved - gap / 2).argmin())
    tokens = moved.flat[best]
    if not 0 < tokens < gap:
        return False
    owner[given[best // len(taken)]] = empty
    if taken[best % len(taken)] >= 0:
        owner[taken[best % len(taken)]] = full
    loads[full] -= tokens
    loads[empty] += tokens
    return True


def imbalance(lengths: np.ndarray, shares: Sequence[np.ndarray]) -> float:
    """Return how much longer the fullest rank works than the average one: max / mean - 1 of the tokens."""
    loads = np.array([lengths[share].sum() for share in shares])
    return float(loads.max() / loads.mean() - 1)
