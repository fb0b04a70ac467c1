"""Which candidates belong to a query: those that are known to answer it, and its own positive and hard negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from reasoning_embedding.data.batch import Batch


def known_answers(batch: Batch, rows: Tensor) -> Tensor | None:
    """Candidates whose text is known to answer some queries.

    Parameters
    ----------
    batch : Batch
        C candidates and the pairs of query and answer.
    rows : Tensor
        (r,) queries.

    Returns
    -------
    Tensor or None
        (r, C) bool; None if all texts of the batch differ, so that only a query's own slot answers it.
    """
    if not batch.known.shape[1]:
        return None
    asked, place = torch.unique(batch.query[rows], return_inverse=True)
    texts, column = torch.unique(batch.document, return_inverse=True)
    question = torch.searchsorted(asked, batch.known[0]).clamp_(max=len(asked) - 1)
    here = asked[question] == batch.known[0]
    table = torch.zeros(len(asked), len(texts), dtype=torch.bool, device=rows.device)
    table[question[here], torch.searchsorted(texts, batch.known[1][here])] = True
    return table[place][:, column]


def own_candidates(batch: Batch, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Places (row among `rows`, candidate) of the positives of these queries, then of their hard negatives."""
    place = torch.full((len(batch.query) + 1,), -1, dtype=torch.int64, device=rows.device)
    place[rows] = torch.arange(len(rows), device=rows.device)
    owner = place[batch.owner]  # -1, of none, is the last entry
    candidate = (owner >= 0).nonzero().squeeze(1)
    return owner[candidate], candidate
