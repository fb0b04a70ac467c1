"""Groups of texts that are the same, or nearly so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .shingles import band_keys, jaccard, minhash, shingle_sets

#: Pairs compared at a time: the bound of memory beside the shingles.
_PAIRS = 20_000


def equal_groups(texts: Iterable[str]) -> np.ndarray:
    """Return a number for each text, the same for equal ones, (n,) int64.

    Notes
    -----
    A text is known by 128 bits of BLAKE2b: some 50 bytes of memory a text, whatever its length.
    """
    digests = bytearray()
    for text in texts:
        digests += blake2b(text.encode(), digest_size=16).digest()
    halves = np.frombuffer(digests, np.uint64).reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    ordered = halves[order]
    groups = np.zeros(len(order), np.int64)
    groups[order[1:]] = np.cumsum((ordered[1:] != ordered[:-1]).any(axis=1))
    return groups


def near_groups(texts: Sequence[str], *, threshold: float = 0.8) -> np.ndarray:
    """Return a group of each text; texts that are alike, or alike to a common third, share one.

    Parameters
    ----------
    texts : sequence of str
        Normalised (see :func:`.shingles.normalise`); equal ones share a group.
    threshold : float
        Smallest Jaccard similarity of word 5-grams of two texts that are alike, in (0, 1].

    Returns
    -------
    np.ndarray
        (n,) int64 from 0.

    Notes
    -----
    Each pair is compared exactly; which pairs are is decided by MinHash with banding, as for
    :func:`.contamination.near_duplicates`. Groups are the connected components of the pairs.
    """
    distinct, place = np.unique(np.array(texts, object), return_inverse=True)
    if not len(distinct):
        return np.zeros(0, np.int64)
    sets = shingle_sets(distinct.tolist(), {})
    keys = band_keys(minhash(sets))
    group = np.arange(len(distinct))
    for band in range(keys.shape[1]):
        order = np.argsort(keys[:, band], kind="stable")
        sorted_keys = keys[order, band]
        for distance in range(1, len(order)):
            near = np.flatnonzero(sorted_keys[distance:] == sorted_keys[:-distance])
            if not len(near):
                break
            pairs = np.stack([order[near], order[near + distance]], axis=1)
            # Those already in one group need no comparing, so a bucket of hundreds of twins stays cheap.
            pairs = pairs[group[pairs[:, 0]] != group[pairs[:, 1]]]
            parts = [pairs[start : start + _PAIRS] for start in range(0, len(pairs), _PAIRS)]
            alike = [part[jaccard(sets, sets, part) >= threshold] for part in parts]
            group = _joined(group, np.concatenate([np.zeros((0, 2), np.int64), *alike]))
    return group[place]


def _joined(group: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    if not len(pairs):
        return group
    edges = group[pairs]
    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(len(group), len(group)))
    return connected_components(graph, directed=False)[1].astype(np.int64)[group]
