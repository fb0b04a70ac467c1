"""Rows that should not be trained on: each rule says which, as a mask over the table."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from reasoning_embedding.data.ragged import Ragged
from reasoning_embedding.data.table import Table
from reasoning_embedding.data.views import View
from reasoning_embedding.errors import InputError

from .contamination import near_duplicates
from .duplicates import equal_groups, near_groups
from .shingles import normalise

#: Training texts compared with evaluation texts at a time: the bound of memory.
_TEXTS = 20_000


def outside_lengths(table: Table, lengths: np.ndarray, low: int | None, high: int | None) -> np.ndarray:
    """Return the rows whose query or one of whose positives is shorter than `low` or longer than `high`.

    Parameters
    ----------
    table : Table
        n rows.
    lengths : np.ndarray
        Length of each text of the table, in any unit.
    low, high : int or None
        Bounds, inside; None: none.

    Returns
    -------
    np.ndarray
        (n,) bool.
    """
    wrong = np.zeros(len(lengths), bool)
    if low is not None:
        wrong |= lengths < low
    if high is not None:
        wrong |= lengths > high
    return wrong[table.query] | rows_with(table.positives, wrong[table.positives.values])


def repeated(table: Table, *, near: bool) -> np.ndarray:
    """Return the rows that an earlier row says already: its query, and its positives in any order.

    Parameters
    ----------
    table : Table
        n rows.
    near : bool
        Whether nearly the same query and nearly the same positives count too (Jaccard similarity of word
        5-grams of at least 0.8); else they must be equal but for case, white space and punctuation.

    Returns
    -------
    np.ndarray
        (n,) bool.
    """
    used = np.unique(np.concatenate([table.query, table.positives.values]))
    reads = View(table.texts, used, lambda pair: normalise(pair[1]))
    if near:
        read = dict(zip(used.tolist(), reads, strict=True))
        queries = near_groups([read[text] for text in table.query.tolist()])
        answers = near_groups(
            ["\n".join(sorted(read[text] for text in own.tolist())) for own in table.positives]
        )
    else:
        number = np.zeros(len(table.texts), np.int64)
        number[used] = equal_groups(reads)
        queries = number[table.query]
        answers = equal_groups(str(np.sort(number[own]).tolist()) for own in table.positives)
    _, first = np.unique(np.stack([queries, answers], axis=1), axis=0, return_index=True)
    again = np.ones(len(table), bool)
    again[first] = False
    return again


def contaminated(table: Table, evaluation: Iterable[str]) -> np.ndarray:
    """Return the rows whose query or one of whose positives is an evaluation text, exactly or nearly.

    Parameters
    ----------
    table : Table
        n rows.
    evaluation : iterable of str
        Queries and documents of evaluation sets.

    Returns
    -------
    np.ndarray
        (n,) bool.

    Notes
    -----
    Exactly and nearly are those of :func:`.contamination.contamination`.
    """
    held = dict.fromkeys(normalise(text) for text in evaluation)
    used = np.unique(np.concatenate([table.query, table.positives.values]))
    found = np.zeros(len(table.texts), bool)
    for start in range(0, len(used), _TEXTS):
        own = used[start : start + _TEXTS]
        reads = [normalise(table.texts[text][1]) for text in own.tolist()]
        found[own] = [text in held for text in reads]
        found[own[list(near_duplicates(list(held), reads))]] = True
    return found[table.query] | rows_with(table.positives, found[table.positives.values])


def narrow_margin(table: Table, margin: float) -> np.ndarray:
    """Return the rows whose lowest positive scores less than `margin` above their best negative.

    Parameters
    ----------
    table : Table
        n rows, scored; a row without negatives has nothing to be near.
    margin : float
        In the unit of the scores.

    Returns
    -------
    np.ndarray
        (n,) bool.

    Raises
    ------
    InputError
        If a row with negatives has no scores.
    """
    lowest, highest = row_scores(table)
    if (missing := (table.negatives.lengths > 0) & np.isnan(lowest - highest)).any():
        raise InputError(
            f"{missing.sum():,} of {len(table):,} rows with negatives have no scores",
            where=f"row {int(missing.argmax()) + 1}: pos_scores, neg_scores",
            todo="name a model that scores them, or mine the negatives: rembed data mine keeps its scores",
        )
    return lowest - highest < margin


def row_scores(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Return the score of each row's lowest positive and best negative, (n,) float64; NaN where there is none."""
    nothing = np.full(len(table), np.nan)
    if table.positive_scores is None or table.negative_scores is None:
        return nothing, nothing
    lowest = np.minimum.reduceat(table.positive_scores.astype(np.float64), table.positives.offsets[:-1])
    highest = nothing.copy()
    some = table.negatives.lengths > 0
    if some.any():
        starts = table.negatives.offsets[:-1][some]
        highest[some] = np.maximum.reduceat(table.negative_scores.astype(np.float64), starts)
    return lowest, highest


def rows_with(lists: Ragged, flags: np.ndarray) -> np.ndarray:
    """Return which lists hold a flagged value, (n,) bool."""
    return np.bincount(lists.owners[flags], minlength=len(lists)) > 0
