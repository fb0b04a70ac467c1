"""Texts as sets of word 5-grams: normalised, hashed, and compared by MinHash and by exact Jaccard."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from reasoning_embedding.data.ragged import Ragged, ranges

#: Words of a shingle; a shorter text is one shingle.
WORDS = 5
#: Bands x rows of the locality-sensitive hash: a pair of Jaccard J becomes a candidate with probability
#: 1 - (1 - J^ROWS)^BANDS, which is 0.99995 at J = 0.8.
BANDS, ROWS = 25, 5
PERMUTATIONS = BANDS * ROWS

# Scripts without spaces: each character is a word.
_LONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_LONE}]|[^\W_{_LONE}]+")
_UINT64 = np.uint64


def normalise(text: str) -> str:
    """Fold compatibility forms, case, white space and punctuation; words end up one space apart.

    A text without letters or digits keeps its symbols, so that ``+`` and ``-`` stay two texts.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = text.casefold()
    return " ".join(_WORD.findall(text)) or " ".join(text.split())


def shingle_sets(texts: Sequence[str], vocabulary: dict[str, int]) -> Ragged:
    """Return the distinct hashed shingles of each text, ascending.

    Parameters
    ----------
    texts : sequence of str
        Normalised, see :func:`normalise`.
    vocabulary : dict of str to int
        Numbers of the words; new words are added. Sets are comparable when they share it.

    Returns
    -------
    Ragged
        uint64 hashes; every text has at least one.
    """
    ids: list[int] = []
    counts = np.empty(len(texts), np.int64)
    for index, text in enumerate(texts):
        words = text.split(" ")
        ids.extend(vocabulary.setdefault(word, len(vocabulary) + 1) for word in words)
        missing = max(WORDS - len(words), 0)
        ids.extend([0] * missing)
        counts[index] = len(words) + missing
    words = _mix(np.array(ids, _UINT64))
    windows = counts - WORDS + 1
    starts = ranges(np.cumsum(counts) - counts, windows)
    hashes = np.zeros(len(starts), _UINT64)
    for offset in range(WORDS):
        hashes = _mix(hashes + words[starts + offset])
    owner = np.repeat(np.arange(len(texts)), windows)
    order = np.lexsort((hashes, owner))
    hashes, owner = hashes[order], owner[order]
    new = np.ones(len(hashes), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (owner[1:] != owner[:-1])
    return Ragged.from_lengths(hashes[new], np.bincount(owner[new], minlength=len(texts)))


def shares_inside(sets: Ragged, universe: np.ndarray) -> np.ndarray:
    """Return the share of each set's shingles that a sorted array holds, (n,) in [0, 1]."""
    inside = _found(universe, sets.values)
    return np.add.reduceat(inside, sets.offsets[:-1], dtype=np.int64) / sets.lengths


def minhash(sets: Ragged, permutations: int = PERMUTATIONS) -> np.ndarray:
    """Return MinHash signatures, (n, permutations) uint64.

    Notes
    -----
    Broder (1997): under a random order of all shingles, two sets share their smallest one with
    probability equal to their Jaccard similarity, so the share of equal entries of two signatures
    estimates it with variance J (1 - J) / permutations. The orders are those of ``a x + b mod 2^64`` over
    hashed shingles, with random odd a.
    """
    rng = np.random.default_rng(0)
    a = rng.integers(0, 2**63, permutations, _UINT64) * _UINT64(2) + _UINT64(1)
    b = rng.integers(0, 2**63, permutations, _UINT64)
    signatures = np.empty((len(sets), permutations), _UINT64)
    starts = sets.offsets[:-1]
    for column in range(permutations):
        signatures[:, column] = np.minimum.reduceat(sets.values * a[column] + b[column], starts)
    return signatures


def band_keys(signatures: np.ndarray) -> np.ndarray:
    """Return a hash of each band of a signature, (n, BANDS) uint64."""
    keys = np.zeros((len(signatures), BANDS), _UINT64)
    for row in range(ROWS):
        keys = _mix(keys + signatures[:, row::ROWS])
    return keys


def jaccard(a: Ragged, b: Ragged, pairs: np.ndarray) -> np.ndarray:
    """Return the exact Jaccard similarity of pairs of sets.

    Parameters
    ----------
    a, b : Ragged
        Sets of one vocabulary.
    pairs : np.ndarray
        (m, 2) indices into `a` and `b`.

    Returns
    -------
    np.ndarray
        (m,) in [0, 1].
    """
    left, right = a.take(pairs[:, 0]), b.take(pairs[:, 1])
    counts = left.lengths
    # Which pair a shingle belongs to is part of its hash, so that one search serves all pairs.
    owner = _mix(np.arange(1, len(pairs) + 1, dtype=_UINT64))
    theirs = np.sort(_mix(right.values ^ np.repeat(owner, right.lengths)))
    ours = _mix(left.values ^ np.repeat(owner, counts))
    common = np.add.reduceat(_found(theirs, ours), left.offsets[:-1], dtype=np.int64)
    return common / (counts + right.lengths - common)


def _found(universe: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Whether each value stands in a sorted array."""
    if not len(universe):
        return np.zeros(len(values), bool)
    return universe[np.minimum(np.searchsorted(universe, values), len(universe) - 1)] == values


def _mix(values: np.ndarray) -> np.ndarray:
    """Scramble 64 bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = values + _UINT64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> _UINT64(30))) * _UINT64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> _UINT64(27))) * _UINT64(0x94D049BB133111EB)
    return values ^ (values >> _UINT64(31))
