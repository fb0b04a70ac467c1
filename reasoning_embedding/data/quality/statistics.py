"""What a table of rows holds: counts, lengths, duplicates, suspects of label noise, false negatives."""

from __future__ import annotations

from typing import Any

import numpy as np

from reasoning_embedding.data.ragged import Ragged
from reasoning_embedding.data.table import Table

from .contamination import shortened
from .duplicates import equal_groups
from .filters import repeated, rows_with
from .shingles import normalise

#: Share of the positive's score from which a negative counts as a false one (arXiv 2407.15831).
FALSE_NEGATIVE = 0.95
_BINS = 40
_EXAMPLES = 5


def statistics(table: Table, lengths: np.ndarray, unit: str) -> dict[str, Any]:
    """Describe a table.

    Parameters
    ----------
    table : Table
        n rows.
    lengths : np.ndarray
        Length of each text of the table.
    unit : str
        What the lengths count: ``tokens`` or ``words``.

    Returns
    -------
    dict
        ``rows``, ``texts`` (distinct), ``skipped``, ``fingerprint``, ``sources`` (name -> rows), ``unit``;
        ``lengths`` and ``counts`` (role -> quantiles and histogram, over every use of a text); ``duplicates``
        and ``suspects`` (what -> rows, and examples); ``scores``, None where no row has any.
    """
    reads = equal_groups(normalise(text) for _, text in table.texts)
    roles = {
        "query": table.query,
        "positive": table.positives.values,
        "negative": table.negatives.values,
    }
    counts = np.bincount(table.source, minlength=len(table.sources)).tolist()
    return {
        "rows": len(table),
        "texts": len(table.texts),
        "skipped": table.skipped,
        "fingerprint": table.fingerprint,
        "sources": dict(zip(table.sources, counts, strict=True)),
        "unit": unit,
        "lengths": {role: distribution(lengths[texts]) for role, texts in roles.items() if len(texts)},
        "counts": {
            "positives a row": distribution(table.positives.lengths),
            "negatives a row": distribution(table.negatives.lengths),
        },
        "duplicates": _duplicates(table, reads),
        "suspects": _suspects(table, reads),
        "scores": _scores(table),
    }


def distribution(values: np.ndarray) -> dict[str, Any]:
    """Return n, mean, quantiles and a histogram of (n,) values; n from 1."""
    low, median, high = np.quantile(values, (0.05, 0.5, 0.95)).tolist()
    heights, edges = np.histogram(values, _bins(values))
    return {
        "n": len(values),
        "mean": float(values.mean()),
        "min": float(values.min()),
        "p5": low,
        "median": median,
        "p95": high,
        "max": float(values.max()),
        "histogram": {"edges": edges.tolist(), "counts": heights.tolist()},
    }


def _bins(values: np.ndarray) -> np.ndarray:
    if not np.issubdtype(values.dtype, np.integer):
        return np.histogram_bin_edges(values, _BINS)
    # Whole numbers fall into bins of equal whole width, or the picture would show stripes.
    low, high = int(values.min()), int(values.max())
    width = -(-(high - low + 1) // _BINS)
    return np.arange(low, high + width + 1, width) - 0.5


def _duplicates(table: Table, reads: np.ndarray) -> dict[str, int]:
    documents = np.unique(np.concatenate([table.positives.values, table.negatives.values]))
    return {
        "rows that repeat an earlier one": int(repeated(table, near=False).sum()),
        "rows with the query of an earlier one": len(table) - len(np.unique(reads[table.query])),
        "documents that read as another": len(documents) - len(np.unique(reads[documents])),
    }


def _suspects(table: Table, reads: np.ndarray) -> dict[str, dict[str, Any]]:
    rows = np.arange(len(table))
    query = reads[table.query]
    positive, negative = (
        Ragged(reads[lists.values], lists.offsets) for lists in (table.positives, table.negatives)
    )
    answers, wrong = _pairs(rows, positive), _pairs(rows, negative)
    by_query, against_query = _pairs(query, positive), _pairs(query, negative)
    own = rows_with(negative, np.isin(wrong, answers))
    masks = {
        "a positive is a negative of the same row": own,
        "a negative answers the same query in another row": rows_with(
            negative, np.isin(against_query, by_query)
        )
        & ~own,
        "the query is its own positive": rows_with(
            positive, np.repeat(query, positive.lengths) == positive.values
        ),
        "the query is its own negative": rows_with(
            negative, np.repeat(query, negative.lengths) == negative.values
        ),
        "the same query has other positives in another row": _disagreeing(query, positive),
    }
    return {
        name: {
            "rows": int(mask.sum()),
            "examples": [_example(table, row) for row in np.flatnonzero(mask)[:_EXAMPLES]],
        }
        for name, mask in masks.items()
    }


def _pairs(owner: np.ndarray, lists: Ragged) -> np.ndarray:
    """One number for each value of each list together with its owner (both below 2^31)."""
    return (np.repeat(owner.astype(np.int64), lists.lengths) << 32) | lists.values


def _disagreeing(query: np.ndarray, positives: Ragged) -> np.ndarray:
    answers = equal_groups(str(np.unique(own).tolist()) for own in positives)
    distinct = np.unique(np.stack([query, answers], axis=1), axis=0)[:, 0]
    return np.bincount(distinct)[query] > 1


def _scores(table: Table) -> dict[str, Any] | None:
    if table.positive_scores is None or table.negative_scores is None:
        return None
    positives, negatives = table.positive_scores, table.negative_scores
    lowest = np.minimum.reduceat(positives, table.positives.offsets[:-1])
    beside = np.repeat(lowest, table.negatives.lengths)
    known = ~np.isnan(beside) & ~np.isnan(negatives)
    if not known.any():
        return None
    gap = (beside - negatives)[known].astype(np.float64)
    # Not so where either is NaN.
    false = negatives > beside - (1 - FALSE_NEGATIVE) * np.abs(beside)
    rows = rows_with(table.negatives, false)
    return {
        "negatives": int(known.sum()),
        "false_negatives": float(false[known].mean()),
        "rows_with_false_negatives": int(rows.sum()),
        "negatives_above_positive": float((gap < 0).mean()),
        "positive": distribution(positives[~np.isnan(positives)].astype(np.float64)),
        "negative": distribution(negatives[known].astype(np.float64)),
        "margin": distribution(gap),
        "examples": [_example(table, row) for row in np.flatnonzero(rows)[:_EXAMPLES]],
    }


def _example(table: Table, row: int) -> dict[str, Any]:
    def text(number: int) -> str:
        return shortened(table.texts[number][1], 160)

    return {
        "row": int(row),
        "source": table.sources[table.source[row]],
        "query": text(table.query[row]),
        "positive": text(table.positives[row][0]),
        "negative": text(table.negatives[row][0]) if len(table.negatives[row]) else None,
    }
