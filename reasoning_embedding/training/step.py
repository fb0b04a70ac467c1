"""One contrastive step: the whole mathematics, from tokens to summed gradients.

Every rank embeds its share of the batch's distinct texts, all embeddings are gathered, each rank takes the
loss of its own query rows against all documents, and the gradient with respect to the embeddings is summed
over ranks before it flows back through the encoder. The result is the gradient of one process that holds
the whole batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder, make_packs
from reasoning_embedding.data.bag import Bag
from reasoning_embedding.distributed import World, all_gather_rows, deal, sum_gradients, sum_over_ranks
from reasoning_embedding.losses import LossOutput, infonce

Loss = Callable[[Tensor, Tensor, Tensor], LossOutput]


@dataclass(frozen=True)
class StepOutput:
    """What one step measured over the whole batch.

    Attributes
    ----------
    loss : float
        Mean loss of the queries, nats.
    accuracy : float
        Share of queries whose positive scores highest.
    tokens : int
        Tokens of the distinct texts, over all ranks.
    slots : int
        Token slots computed, over all ranks (more than `tokens` only where padding is).
    """

    loss: float
    accuracy: float
    tokens: int
    slots: int


def build_loss(loss: config.InfoNCE) -> Loss:
    """Return the loss a config names, as a function of (queries, documents, positive)."""
    return partial(infonce, temperature=loss.temperature)


def contrastive_step(
    embedder: Embedder,
    bag: Bag,
    loss: Loss,
    world: World,
    *,
    pack_tokens: int = 16384,
    autocast: torch.dtype | None = None,
) -> StepOutput:
    """Compute the loss of a batch and ADD its gradient to the parameters.

    Parameters
    ----------
    embedder : Embedder
        The model; its weights must be equal on all ranks.
    bag : Bag
        The whole batch, equal on all ranks.
    loss : callable
        (queries (b, D), documents (C, D), positive (b,)) -> sums over the b rows.
    world : World
        The job.
    pack_tokens : int
        Most tokens in one forward.
    autocast : torch.dtype, optional
        Compute dtype of the encoder; pooling, loss and gradients stay in float32.

    Returns
    -------
    StepOutput
        Equal on all ranks.
    """
    lengths = bag.lengths
    shares = deal(lengths, world.size)
    local = _embed(embedder, bag, shares[world.rank], pack_tokens, autocast)

    gathered = all_gather_rows(local.detach(), [len(share) for share in shares], world)
    position = torch.from_numpy(np.argsort(np.concatenate(shares))).to(world.device)
    embeddings = gathered[position].requires_grad_()

    queries = len(bag.query)
    rows = torch.arange(queries, device=world.device)[world.rank :: world.size]
    query = embeddings[torch.from_numpy(bag.query).to(world.device)[rows]]
    document = embeddings[torch.from_numpy(bag.document).to(world.device)]
    output = loss(query, document, rows)  # candidate i is the positive of query i
    (output.total / queries).backward()

    gradient = sum_over_ranks(_gradient(embeddings), world)
    if len(local):
        local.backward(gradient[torch.from_numpy(shares[world.rank]).to(world.device)].to(local.dtype))
    sum_gradients(embedder.parameters(), world)

    sums = sum_over_ranks(
        torch.stack([output.total.detach().double(), output.correct.double()]), world
    ).tolist()
    tokens = int(lengths.sum())
    return StepOutput(sums[0] / queries, sums[1] / queries, tokens, tokens)


def _embed(
    embedder: Embedder, bag: Bag, share: np.ndarray, pack_tokens: int, autocast: torch.dtype | None
) -> Tensor:
    """Embed this rank's texts; (len(share), D) in the order of `share`, with a graph."""
    device = embedder.device
    if not len(share):
        return torch.zeros(0, embedder.dimension, device=device, dtype=next(embedder.parameters()).dtype)
    precision = (
        torch.autocast(device.type, dtype=autocast) if autocast is not None else contextlib.nullcontext()
    )
    pieces, order = [], []
    for pack, indices in make_packs(
        [bag.texts[text] for text in share], bag.prompt_lengths[share], pack_tokens
    ):
        with precision:
            pieces.append(embedder(pack.to(device)))
        order.append(indices)
    return torch.cat(pieces)[torch.from_numpy(np.argsort(np.concatenate(order))).to(device)]


def _gradient(tensor: Tensor) -> Tensor:
    return tensor.grad if tensor.grad is not None else torch.zeros_like(tensor)
