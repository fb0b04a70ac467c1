"""The gradient of a loss with respect to the embeddings of a batch's distinct texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .infonce import LossOutput

Loss = Callable[[Tensor, Tensor, Tensor], LossOutput]


@dataclass(frozen=True)
class EmbeddingGradient:
    """What some of a batch's query rows contribute; contributions of disjoint rows add up.

    Attributes
    ----------
    gradient : Tensor
        (n, D) gradient of the batch's mean loss, these rows' part.
    loss, accuracy : Tensor
        Scalars in float64: these rows' part of the batch's means.
    """

    gradient: Tensor
    loss: Tensor
    accuracy: Tensor


def embedding_gradient(
    embeddings: Tensor, query: Tensor, document: Tensor, rows: Tensor, loss: Loss, *, tile_rows: int = 1024
) -> EmbeddingGradient:
    """Differentiate some query rows' loss, a tile of rows at a time.

    Parameters
    ----------
    embeddings : Tensor
        (n, D) of the distinct texts, detached.
    query : Tensor
        (B,) text of each query.
    document : Tensor
        (C,) text of each candidate; candidate i < B is the positive of query i.
    rows : Tensor
        Queries that are this rank's share; may be empty.
    loss : callable
        (queries (b, D), documents (C, D), positive (b,)) -> sums over the b rows.
    tile_rows : int
        Queries scored at a time.
    """
    queries = len(query)
    own = embeddings[query[rows]].requires_grad_()
    candidates = embeddings[document].requires_grad_()
    total = correct = torch.zeros((), dtype=torch.float64, device=embeddings.device)
    for tile in torch.arange(len(rows), device=embeddings.device).split(tile_rows):
        output = loss(own[tile], candidates, rows[tile])
        (output.total / queries).backward()
        total = total + output.total.detach().double() / queries
        correct = correct + output.correct.double() / queries
    gradient = torch.zeros_like(embeddings)
    for text, tensor in ((query[rows], own), (document, candidates)):
        if tensor.grad is not None:  # no rows, no gradient
            gradient.index_add_(0, text, tensor.grad)
    return EmbeddingGradient(gradient, total, correct)
