"""Hard negatives: documents that score high for a query without being an answer to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

import numpy as np

from reasoning_embedding.data.order import generator
from reasoning_embedding.data.quality.duplicates import equal_groups
from reasoning_embedding.data.quality.shingles import normalise
from reasoning_embedding.data.ragged import Ragged
from reasoning_embedding.data.rows import Row, written_scores
from reasoning_embedding.data.table import Table
from reasoning_embedding.data.views import Joined, View
from reasoning_embedding.errors import InputError

from .neighbours import Search

_DRAW = 21


@dataclass(frozen=True)
class MiningRule:
    """Which of the documents that rank high for a query become its hard negatives.

    Parameters
    ----------
    negatives : int
        Negatives a row, from 1; a row gets fewer where fewer pass.
    first, last : int
        Window of ranks, from 1, both inside; positives and their duplicates have no rank.
    positive_share : float or None
        A negative scores at most this share of the row's lowest positive, in (0, 1]; None: no such rule.
    margin : float or None
        A negative scores at least this much less than the row's lowest positive; None: no such rule.
    max_score, min_score : float or None
        Bounds of a negative's score, inside.
    draw : {"top", "random"}
        The highest that pass, or a sample of them.
    seed : int
        Of the sample; not negative.

    Raises
    ------
    InputError
        For a value outside its range.

    Notes
    -----
    The relative rule is TopK-PercPos of NV-Retriever (Moreira et al. 2024, arXiv 2407.15831), whose 0.95 is
    the default: s(q, n) <= 0.95 s(q, p). Where s(q, p) is negative the bound is s - 0.05 |s|, so that it
    always lies below the positive.
    """

    negatives: int = 7
    first: int = 1
    last: int = 100
    positive_share: float | None = 0.95
    margin: float | None = None
    max_score: float | None = None
    min_score: float | None = None
    draw: Literal["top", "random"] = "top"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.negatives < 1:
            raise InputError(f"{self.negatives} negatives a row", where="negatives", todo="ask for 1 or more")
        if not 1 <= self.first <= self.last:
            raise InputError(
                f"no rank is in {self.first} to {self.last}", where="ranks", todo="count from 1 up"
            )
        if self.last - self.first + 1 < self.negatives:
            what = f"ranks {self.first} to {self.last} cannot hold {self.negatives} negatives"
            raise InputError(what, where="ranks", todo="widen the window or ask for fewer negatives")
        if self.positive_share is not None and not 0 < self.positive_share <= 1:
            what = f"a share of {self.positive_share:g} is not in (0, 1]"
            raise InputError(what, where="positive_share", todo="0.95 is usual")

    def highest(self, positives: np.ndarray) -> float:
        """Return the highest score a negative may have beside positives of these scores."""
        lowest = float(positives.min())
        bounds = [np.inf if self.max_score is None else self.max_score]
        if self.positive_share is not None:
            bounds.append(lowest - (1 - self.positive_share) * abs(lowest))
        if self.margin is not None:
            bounds.append(lowest - self.margin)
        return min(bounds)

    def choose(self, scores: np.ndarray, positives: np.ndarray, row: int) -> np.ndarray:
        """Return the places of the negatives among a row's ranked candidates (highest score first).

        Parameters
        ----------
        scores : np.ndarray
            (c,) scores of the candidates from rank 1 on.
        positives : np.ndarray
            (p,) scores of the row's positives.
        row : int
            The row, for the random draw.
        """
        window = np.arange(len(scores))[self.first - 1 : self.last]
        lowest = -np.inf if self.min_score is None else self.min_score
        passing = window[(scores[window] <= self.highest(positives)) & (scores[window] >= lowest)]
        if self.draw == "random" and len(passing) > self.negatives:
            drawn = generator(self.seed, _DRAW, row).choice(passing, self.negatives, replace=False)
            return np.sort(drawn)
        return passing[: self.negatives]


@dataclass(frozen=True)
class CandidatePool:
    """Rows and documents as a miner sees them.

    Parameters
    ----------
    table : Table
        The rows; a query's prompt is its instruction.
    queries : sequence of (str, str)
        Distinct instruction and text.
    query : ndarray of int64, shape (n,)
        Query of each row.
    documents : sequence of str
        First those that may be mined, no two of which read the same but for case, white space and
        punctuation; then positives that are not among them.
    minable : int
        How many may be mined.
    positives : Ragged
        Document of each positive of each row.
    banned : Ragged
        Documents that are never negatives of a row (ascending): they read as its query, or as a positive of
        any row with that query.
    """

    table: Table
    queries: Sequence[tuple[str, str]]
    query: np.ndarray
    documents: Sequence[str]
    minable: int
    positives: Ragged
    banned: Ragged


def make_pool(table: Table, corpus: Sequence[str] | None = None) -> CandidatePool:
    """Collect the documents of a table or of a corpus, and what each row must not be given.

    Parameters
    ----------
    table : Table
        Rows, with queries whose prompt is their instruction (``query_template="{instruction}"``).
    corpus : sequence of str, optional
        What negatives are mined from; absent: every positive and negative of the table.

    Notes
    -----
    Texts stay where they are; a text takes some 100 bytes of numbers here, whatever its length.
    """
    if corpus is None:
        own = np.unique(np.concatenate([table.positives.values, table.negatives.values]))
        corpus = View(table.texts, own, _text)
    asked, query = np.unique(table.query, return_inverse=True)
    answers, first, answer = np.unique(table.positives.values, return_index=True, return_inverse=True)
    positives, queries = View(table.texts, answers, _text), View(table.texts, asked, _text)
    reads = equal_groups(normalise(text) for text in chain(corpus, positives, queries))
    # Of the documents that read the same the first may be mined.
    kept = np.sort(np.unique(reads[: len(corpus)], return_index=True)[1])
    place_of = np.full(int(reads.max()) + 1, -1)
    place_of[reads[kept]] = np.arange(len(kept))
    twin = place_of[reads[len(corpus) : len(corpus) + len(answers)]]
    group = reads[len(corpus) + len(answers) :]
    # A positive is the minable document that it equals letter by letter; the others follow, the first first.
    same = equal_groups(chain(View(corpus, kept), positives))
    equal_to = np.full(int(same.max()) + 1, -1)
    equal_to[same[: len(kept)]] = np.arange(len(kept))
    found = equal_to[same[len(kept) :]]
    others = np.flatnonzero(found < 0)
    others = others[np.argsort(first[others])]
    found[others] = len(kept) + np.arange(len(others))
    twins = Ragged(twin[answer], table.positives.offsets)
    return CandidatePool(
        table,
        View(table.texts, asked),
        query,
        Joined(View(corpus, kept), View(positives, others)),
        len(kept),
        Ragged(found[answer], table.positives.offsets),
        _banned(np.unique(group, return_inverse=True)[1], place_of[group], query, twins),
    )


def _text(pair: tuple[str, str]) -> str:
    return pair[1]


def _banned(group: np.ndarray, own: np.ndarray, query: np.ndarray, twin: Ragged) -> Ragged:
    """Documents that read as the query of each row, or as a positive of any row whose query reads the same.

    `group` numbers the queries by how they read, `own` is the document that reads as each, or -1.
    """
    owner = np.concatenate([np.repeat(group[query], twin.lengths), group])
    pairs = np.stack([owner, np.concatenate([twin.values, own])], axis=1)
    pairs = np.unique(pairs[pairs[:, 1] >= 0], axis=0)
    by_group = Ragged(pairs[:, 1], np.searchsorted(pairs[:, 0], np.arange(group.max() + 2)))
    return by_group.take(group[query])


def check_pool(pool: CandidatePool, rule: MiningRule) -> None:
    """Refuse a corpus in which no row can find its negatives.

    Raises
    ------
    InputError
        If there are fewer documents than the first rank and the number of negatives take.
    """
    needed = rule.first - 1 + rule.negatives
    if pool.minable < needed:
        window = f"from rank {rule.first} on" if rule.first > 1 else "a row"
        raise InputError(
            f"a corpus of {pool.minable} distinct texts is smaller than the {rule.negatives} negatives {window}",
            where="corpus",
            todo=f"add texts, or ask for at most {max(pool.minable - rule.first + 1, 0)} negatives",
        )


def mine(pool: CandidatePool, search: Search, rule: MiningRule, rows: range) -> Iterator[Row]:
    """Yield rows with their hard negatives and the scores of both.

    Parameters
    ----------
    pool : CandidatePool
        Rows and documents.
    search : Search
        Over its queries and documents.
    rule : MiningRule
        What becomes a negative.
    rows : range
        Which rows.

    Notes
    -----
    Candidates rank by score, ties by their place in the corpus.
    """
    for start in range(rows.start, rows.stop, search.block):
        block = np.arange(start, min(start + search.block, rows.stop))
        for row, ids, scores, positives in ranked(pool, search, block, rule.last):
            chosen = rule.choose(scores, positives, row)
            yield replace(
                pool.table.row(row),
                negatives=tuple(pool.documents[document] for document in ids[chosen]),
                positive_scores=written_scores(positives),
                negative_scores=written_scores(scores[chosen]),
            )


def ranked(
    pool: CandidatePool, search: Search, rows: np.ndarray, last: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield each row with its `last` best documents, their scores (highest first) and those of its positives."""
    queries = pool.query[rows]
    candidates = search.candidates(queries, last, pool.banned.take(rows))
    for row, query, ids in zip(rows.tolist(), queries.tolist(), candidates, strict=True):
        documents = np.concatenate([pool.positives[row], ids])
        scores = search.scores(np.full(len(documents), query), documents)
        positives, scores = np.split(scores, [len(pool.positives[row])])
        order = np.lexsort((ids, -scores))[:last]
        yield row, ids[order], scores[order], positives


def inconsistent(pool: CandidatePool, search: Search, k: int) -> np.ndarray:
    """Return the rows with no positive among the `k` documents that score best for their query.

    Parameters
    ----------
    pool : CandidatePool
        n rows and the documents they compete with.
    search : Search
        Over its queries and documents.
    k : int
        From 1. Other answers to the query do not compete; a tie is the positive's.

    Returns
    -------
    np.ndarray
        (n,) bool.

    Notes
    -----
    Round-trip consistency as in Promptagator (Dai et al. 2022, arXiv 2209.11755), whose k is 1.
    """
    lost = np.zeros(len(pool.table), bool)
    for start in range(0, len(lost), search.block):
        rows = np.arange(start, min(start + search.block, len(lost)))
        for row, _, scores, positives in ranked(pool, search, rows, k):
            lost[row] = np.count_nonzero(scores > positives.max()) >= k
    return lost
