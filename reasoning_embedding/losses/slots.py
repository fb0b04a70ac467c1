"""Which text of a batch plays which part in its loss, as index tensors."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from reasoning_embedding.data.batch import Bag


@dataclass(frozen=True)
class Slots:
    """The parts that n distinct texts play: B queries and C candidate documents.

    Attributes
    ----------
    query : Tensor
        (B,) int64, text of each query.
    document : Tensor
        (C,) int64, text of each candidate; candidate i < B is the positive of query i, hard negatives follow.
    owner : Tensor
        (C,) int64, the query that brought each candidate, i for candidate i < B; -1: nobody's.
    known : Tensor
        (2, P) int64, pairs of texts: the second answers the query whose text is the first, and stands in a
        candidate slot other than the query's own. No pairs where all texts differ.
    score : Tensor
        (C,) float64, a teacher's score of each candidate for its owner; NaN where there is none.
    seed : int
        Of anything random in this batch's loss; equal on all ranks.
    """

    query: Tensor
    document: Tensor
    owner: Tensor
    known: Tensor
    score: Tensor
    seed: int = 0

    @classmethod
    def of(cls, bag: Bag) -> Slots:
        """Slots of a batch."""
        queries, candidates = len(bag.query), len(bag.document)
        owner = np.concatenate([np.arange(queries), np.full(candidates - queries, -1)])
        score = bag.score if len(bag.score) else np.full(candidates, np.nan)
        arrays = (bag.query, bag.document, bag.owner if len(bag.owner) else owner, _known(bag))
        index = [torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)) for array in arrays]
        return cls(*index, torch.from_numpy(score.astype(np.float64)), bag.seed)

    def to(self, device: torch.device) -> Slots:
        """The same on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Slots(
            **{
                name: value.to(device) if isinstance(value, Tensor) else value
                for name, value in values.items()
            }
        )


def _known(bag: Bag) -> np.ndarray:
    """(2, P) pairs (query's text, text that answers it) whose answer fills a slot other than the query's own."""
    texts, drawn = len(bag.texts), bag.document[: len(bag.query)]
    # One number a pair: sorting those is much faster than sorting rows.
    pairs = np.concatenate([bag.query * texts + drawn, bag.known[:, 0] * texts + bag.known[:, 1]])
    query, answer = np.divmod(np.unique(pairs), texts)
    copies = np.bincount(bag.document, minlength=texts)
    # A text asked by several rows is no row's own.
    own = np.full(texts, -1)
    own[bag.query] = drawn
    own[np.bincount(bag.query, minlength=texts) > 1] = -1
    return np.stack([query, answer])[:, copies[answer] > (own[query] == answer)]
