"""InfoNCE over in-batch and hard negatives. Pure tensors in, scalars out, no process group."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def infonce(
    queries: Tensor, documents: Tensor, positive: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor]:
    """Score each query against every document and ask for its positive.

    Parameters
    ----------
    queries : Tensor
        (B, D) unit vectors.
    documents : Tensor
        (C, D) unit vectors: positives and hard negatives of the whole batch.
    positive : Tensor
        (B,) int64, row of `documents` that answers each query.
    temperature : float
        Divides the cosine similarities; > 0.

    Returns
    -------
    total : Tensor
        Scalar, sum of -log softmax_c(q . d_c / temperature)[positive] over the queries, nats.
    correct : Tensor
        Scalar, queries whose positive scores higher than every other candidate: a tie is none, and neither is a query
        without another candidate.

    Notes
    -----
    van den Oord et al. 2018 (arXiv 1807.03748), query -> document direction only, as in arXiv 2601.21192.
    The logits are computed in at least float32 whatever the dtype of the inputs.
    """
    dtype = torch.float64 if queries.dtype == torch.float64 else torch.float32
    logits = queries.to(dtype) @ documents.to(dtype).T / temperature
    total = F.cross_entropy(logits, positive, reduction="sum")
    scores, others = logits.detach(), logits.detach().clone()
    own = (torch.arange(len(positive), device=positive.device), positive)
    others[own] = -torch.inf
    best = others.amax(dim=1)
    correct = ((scores[own] > best) & (best > -torch.inf)).sum()
    return total, correct
