"""Evaluation texts that also stand in the training data, word for word or nearly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reasoning_embedding.data.ragged import Ragged
from reasoning_embedding.data.table import Table

from .shingles import WORDS, band_keys, jaccard, minhash, normalise, shares_inside, shingle_sets

#: Jaccard similarity of word 5-grams from which two texts count as near-duplicates.
THRESHOLD = 0.8
#: Texts shingled at a time, and pairs compared at a time: bounds of memory.
_TEXTS, _PAIRS = 20_000, 20_000
#: Most pairs written out a task and kind of text.
_EXAMPLES = 5
_ROLES = ("query", "positive", "negative")

#: Texts of a task by what they are there: ``queries`` and ``documents``, or ``texts``.
TaskTexts = Mapping[str, Sequence[str]]


def contamination(table: Table, tasks: Mapping[str, TaskTexts]) -> dict[str, Any]:
    """Compare evaluation texts with the queries (without prompt) and documents of the training data.

    Parameters
    ----------
    table : Table
        The training data.
    tasks : mapping of str to mapping of str to sequence of str
        Task -> what its texts are -> texts.

    Returns
    -------
    dict
        ``threshold``, ``words`` (of a shingle), ``training`` (distinct texts, fingerprint of the data) and
        ``tasks``: for each a record a kind of text with ``texts`` (distinct ones), ``exact`` and ``near``
        (how many of them have a match in training), ``sources`` (training source -> matches) and
        ``examples``, five at most.

    Notes
    -----
    Exact: equal after folding case, white space and punctuation. Near: Jaccard similarity of the sets of
    word 5-grams of at least 0.8, exact for each candidate; candidates come from MinHash with banding
    (Leskovec et al., Mining of Massive Datasets, 3.4), which misses a pair of similarity 0.8 once in
    20,000. Texts of fewer than five words are compared as a whole.
    """
    texts: dict[str, int] = {}  # normalised training text -> the first text of the table that reads so
    for index, (_, text) in enumerate(table.texts):
        texts.setdefault(normalise(text), index)
    wanted: dict[tuple[str, str], dict[str, str]] = {}  # normalised evaluation text -> as written
    for task, kinds in tasks.items():
        for kind, own in kinds.items():
            folded = wanted.setdefault((task, kind), {})
            for text in own:
                folded.setdefault(normalise(text), text)
    rest = sorted({text for own in wanted.values() for text in own} - texts.keys())
    near = near_duplicates(list(texts), rest)
    places = _Places(table)
    found: dict[str, dict[str, Any]] = {task: {} for task in tasks}
    ids = list(texts.values())
    for (task, kind), own in wanted.items():
        matches = [(raw, texts[text], 1.0, "exact") for text, raw in own.items() if text in texts]
        matches += [
            (own[rest[index]], ids[match], similarity, "near")
            for index, (match, similarity) in near.items()
            if rest[index] in own
        ]
        found[task][kind] = _record(len(own), matches, places)
    return {
        "threshold": THRESHOLD,
        "words": WORDS,
        "training": {"texts": len(texts), "fingerprint": table.fingerprint},
        "tasks": found,
    }


def near_duplicates(training: Sequence[str], texts: Sequence[str]) -> dict[int, tuple[int, float]]:
    """Return for each text that has a near-duplicate in `training` one of those and their similarity.

    Parameters
    ----------
    training, texts : sequence of str
        Normalised and distinct.

    Returns
    -------
    dict of int to (int, float)
        Index into `texts` -> (index into `training`, Jaccard similarity of word 5-grams, from 0.8).
    """
    if not training or not texts:
        return {}
    vocabulary: dict[str, int] = {}
    sets = shingle_sets(texts, vocabulary)
    # |A n B| / |A u B| >= t needs a share of t of either set in the other: nearly every text is left out
    # here, before any of it is hashed again.
    universe = np.unique(sets.values)
    survivors, parts = [], []
    for start in range(0, len(training), _TEXTS):
        chunk = shingle_sets(training[start : start + _TEXTS], vocabulary)
        keep = np.flatnonzero(shares_inside(chunk, universe) >= THRESHOLD)
        survivors.append(start + keep)
        parts.append(chunk.take(keep))
    trained = np.concatenate(survivors)
    if not len(trained):
        return {}
    train_sets = Ragged.from_lengths(
        np.concatenate([part.values for part in parts]), np.concatenate([part.lengths for part in parts])
    )
    asked = np.flatnonzero(shares_inside(sets, np.unique(train_sets.values)) >= THRESHOLD)
    if not len(asked):
        return {}
    matches = _matches(sets.take(asked), train_sets)
    return {int(asked[i]): (int(trained[j]), value) for i, (j, value) in sorted(matches.items())}


def _matches(asked: Ragged, trained: Ragged) -> dict[int, tuple[int, float]]:
    """One pair at or above the threshold for each set of `asked` that has one, band after band."""
    left, right = band_keys(minhash(asked)), band_keys(minhash(trained))
    matches: dict[int, tuple[int, float]] = {}
    open_ = np.ones(len(asked), bool)
    for band in range(left.shape[1]):
        order = np.argsort(right[:, band], kind="stable")
        keys = right[order, band]
        own = np.flatnonzero(open_)
        low = np.searchsorted(keys, left[own, band], "left")
        counts = np.searchsorted(keys, left[own, band], "right") - low
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        for start in range(0, total, _PAIRS):
            place = np.arange(start, min(start + _PAIRS, total))
            row = np.searchsorted(ends, place, "right")
            pairs = np.column_stack([own[row], order[low[row] + place - (ends - counts)[row]]])
            pairs = pairs[open_[pairs[:, 0]]]
            if not len(pairs):
                continue
            values = jaccard(asked, trained, pairs)
            for (i, j), value in zip(pairs.tolist(), values.tolist(), strict=True):
                if value >= THRESHOLD and value > matches.get(i, (0, 0.0))[1]:
                    matches[i] = (j, value)
                    open_[i] = False
    return matches


class _Places:
    """Where in the training data a text first stands."""

    def __init__(self, table: Table) -> None:
        self._table = table
        owners = [np.arange(len(table)), table.positives.owners, table.negatives.owners]
        texts = [table.query, table.positives.values, table.negatives.values]
        # Later assignments win: negatives first, and each from the last row to the first.
        self._row = np.zeros(len(table.texts), np.int64)
        self._role = np.zeros(len(table.texts), np.int8)
        for role in (2, 1, 0):
            self._row[texts[role][::-1]] = owners[role][::-1]
            self._role[texts[role]] = role

    def source(self, text: int) -> str:
        """Name of the source of the first row that holds a text of the table."""
        return self._table.sources[self._table.source[self._row[text]]]

    def describe(self, text: int) -> dict[str, Any]:
        """Text, source, row (from 0 in the order of reading) and role of a text of the table."""
        return {
            "text": shortened(self._table.texts[text][1]),
            "source": self.source(text),
            "row": int(self._row[text]),
            "role": _ROLES[self._role[text]],
        }


def _record(count: int, matches: list[tuple[str, int, float, str]], places: _Places) -> dict[str, Any]:
    kinds = Counter(kind for *_, kind in matches)
    return {
        "texts": count,
        "exact": kinds["exact"],
        "near": kinds["near"],
        "sources": dict(Counter(places.source(text) for _, text, _, _ in matches).most_common()),
        "examples": [
            {
                "kind": kind,
                "jaccard": round(value, 4),
                "text": shortened(raw),
                "training": places.describe(text),
            }
            for raw, text, value, kind in matches[:_EXAMPLES]
        ],
    }


def shortened(text: str, length: int = 200) -> str:
    """Return a text of at most so many characters; where some are missing it ends in an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def contamination_line(task: str, kinds: Mapping[str, Any]) -> str:
    """Say in a line how many of a task's texts also stand in the training data."""
    parts = [
        f"{record['exact']:,} exact and {record['near']:,} near of {record['texts']:,} {kind}"
        for kind, record in kinds.items()
    ]
    return f"contamination of {task}: {'; '.join(parts)}"
