"""A batch as a bag of distinct texts, with the slots they fill in the loss."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    texts: list[np.ndarray]
    prompt_lengths: np.ndarray
    query: np.ndarray
    document: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """(n,) tokens of each text."""
        return np.array([len(text) for text in self.texts], dtype=np.int64)


def make_bag(batch: Batch, store: TokenStore) -> Bag:
    """Collect the distinct texts of a batch."""
    slots = np.concatenate([batch.query, batch.positive, batch.negative])
    distinct, inverse = np.unique(slots, return_inverse=True)
    queries = len(batch.query)
    return Bag(
        [store[int(text)] for text in distinct],
        store.prompt_lengths[distinct],
        inverse[:queries],
        inverse[queries:],
    )
