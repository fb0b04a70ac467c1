"""One contrastive step: the whole mathematics, from tokens to summed gradients.

Every rank embeds its share of the batch's distinct texts, all embeddings are gathered, each rank takes the
loss of its own query rows against all documents, and the gradient with respect to the embeddings is summed
over ranks before it flows back through the encoder. The result is the gradient of one process that holds
the whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder
from reasoning_embedding.data.bag import Bag
from reasoning_embedding.distributed import World, all_gather_rows, deal, sum_over_ranks
from reasoning_embedding.losses import Loss, embedding_gradient, infonce

from .engines import Engine, Replicated
from .share import Forwards, Share


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
    store_tokens: int | None = None,
    tile_rows: int = 1024,
    autocast: torch.dtype | None = None,
    engine: Engine | None = None,
) -> StepOutput:
    """Compute the loss of a batch and ADD its gradient to the parameters.

    Parameters
    ----------
    embedder : Embedder
        The model.
    bag : Bag
        The whole batch, equal on all ranks.
    loss : callable
        (queries (b, D), documents (C, D), positive (b,)) -> sums over the b rows.
    world : World
        The job.
    pack_tokens : int
        Most tokens in one forward.
    store_tokens : int, optional
        Tokens of this rank whose activations are kept; the rest is embedded again for its gradient
        (GradCache, arXiv 2101.06983). Absent: all are kept. The gradient is the same.
    tile_rows : int
        Queries scored at a time: no tensor of the loss is larger than tile_rows x C.
    autocast : torch.dtype, optional
        Compute dtype of the encoder; pooling, loss and gradients stay in float32.
    engine : Engine, optional
        How the ranks hold the model. Absent: each holds it whole, with equal weights.

    Returns
    -------
    StepOutput
        Equal on all ranks.
    """
    lengths = bag.lengths
    shares = deal(lengths, world.size)
    forwards = Forwards(pack_tokens, store_tokens, autocast)
    share = Share(engine or Replicated(embedder, world), bag, shares[world.rank], forwards)

    gathered = all_gather_rows(share.embeddings(), [len(texts) for texts in shares], world)
    position = torch.from_numpy(np.argsort(np.concatenate(shares))).to(world.device)
    embeddings = gathered[position]

    query, document = (torch.from_numpy(texts).to(world.device) for texts in (bag.query, bag.document))
    rows = torch.arange(len(query), device=world.device)[world.rank :: world.size]
    part = embedding_gradient(embeddings, query, document, rows, loss, tile_rows=tile_rows)
    gradient = sum_over_ranks(part.gradient, world)
    share.backward(gradient[torch.from_numpy(shares[world.rank]).to(world.device)])

    sums = sum_over_ranks(torch.stack([part.loss, part.accuracy]), world).tolist()
    tokens = int(lengths.sum())
    return StepOutput(sums[0], sums[1], tokens, tokens)
