"""A batch as a bag of distinct texts, with the slots they fill in the loss."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .plan import Batch
from .tokens import TokenStore


@dataclass(frozen=True)
class Bag:
    """n distinct texts of B queries and C candidate documents.

    A text that fills several slots is embedded once; its gradients add up.

    Attributes
    ----------
    texts : list of np.ndarray
        Token ids of each distinct text.
    prompt_lengths : np.ndarray
        (n,) leading tokens that are instruction.
    query : np.ndarray
        (B,) text of each query.
    document : np.ndarray
        (C,) text of each candidate: the B positives in query order, then the hard negatives.
    owner : np.ndarray
        (C,) query that brought each candidate; empty: nobody looks at it.
    known : np.ndarray
        (P, 2) pairs of texts whose second answers the first, beside the drawn positives.
    score : np.ndarray
        (C,) float32, a teacher's score of each candidate for its owner, NaN where there is none; empty: none.
    seed : int
        Of anything random about this batch; equal on all ranks.
    """

    texts: list[np.ndarray]
    prompt_lengths: np.ndarray
    query: np.ndarray
    document: np.ndarray
    owner: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    known: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    score: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    seed: int = 0

    @property
    def lengths(self) -> np.ndarray:
        """(n,) tokens of each text."""
        return np.array([len(text) for text in self.texts], dtype=np.int64)


def make_bag(batch: Batch, store: TokenStore) -> Bag:
    """Collect the distinct texts of a batch."""
    slots = np.concatenate([batch.query, batch.positive, batch.negative])
    distinct, inverse = np.unique(slots, return_inverse=True)
    queries = len(batch.query)
    place = np.searchsorted(distinct, batch.answer).clip(max=len(distinct) - 1)
    present = distinct[place] == batch.answer
    return Bag(
        texts=[store[int(text)] for text in distinct],
        prompt_lengths=store.prompt_lengths[distinct],
        query=inverse[:queries],
        document=inverse[queries:],
        owner=np.concatenate([np.arange(queries), batch.negative_owner]),
        known=np.stack([inverse[batch.answer_owner[present]], place[present]], axis=1),
        score=batch.score,
        seed=batch.seed,
    )
