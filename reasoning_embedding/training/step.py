"""One contrastive step: the whole mathematics, from tokens to summed gradients.

Every rank embeds a part of the batch's distinct texts, all embeddings are gathered, each rank takes the
loss of its own query rows against all documents, and the gradient with respect to the embeddings is summed
over ranks before it flows back through the encoder. The result is the gradient of one process that holds
the whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from reasoning_embedding.backbones import Embedder
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.distributed import World, all_gather_rows, deal, imbalance, sum_over_ranks
from reasoning_embedding.losses import ContrastiveLoss

from .embedding_pass import EmbeddingPass
from .engines import Engine, Replicated
from .timers import phase


@dataclass(frozen=True)
class StepOutput:
    """What one step measured over the whole batch.

    Attributes
    ----------
    loss : float
        Mean loss of the queries, nats, and what else the loss adds.
    accuracy : float
        Share of queries whose positive scores higher than every other document of their softmax; a tie is no hit.
    tokens : int
        Tokens of the distinct texts, over all ranks.
    computed_tokens : int
        Tokens in forwards, over all ranks (more than `tokens` only where padding is); a second forward of the same
        text is not counted.
    imbalance : float
        Tokens of the fullest rank over the mean of all ranks, minus 1.
    parts : dict of str to float
        Values that make up the loss, by name, where it is more than InfoNCE, and a learnt temperature.
    """

    loss: float
    accuracy: float
    tokens: int
    computed_tokens: int
    imbalance: float
    parts: dict[str, float] = field(default_factory=dict)


def contrastive_step(
    embedder: Embedder,
    batch: Batch,
    loss: ContrastiveLoss,
    world: World,
    *,
    pack_tokens: int = 16384,
    store_tokens: int | None = None,
    autocast: torch.dtype | None = None,
    engine: Engine | None = None,
    anchor: Embedder | None = None,
    dropout: tuple[int, ...] | None = None,
) -> StepOutput:
    """Compute the loss of a batch and ADD its gradient to the parameters.

    Parameters
    ----------
    embedder : Embedder
        The model.
    batch : Batch
        The whole batch, equal on all ranks.
    loss : ContrastiveLoss
        What the embeddings are trained for.
    world : World
        The job.
    pack_tokens : int
        Most tokens in one forward.
    store_tokens : int, optional
        Tokens of this rank whose activations are kept; the rest is embedded again for its gradient
        (GradCache, arXiv 2101.06983). Absent: all are kept. The gradient is the same.
    autocast : torch.dtype, optional
        Compute dtype of the encoder; pooling, loss and gradients stay in float32.
    engine : Engine, optional
        How the ranks hold the model. Absent: each holds all of it, with equal weights.
    anchor : Embedder, optional
        The frozen backbone that the loss compares with, if it does; unsharded on every rank.
    dropout : tuple of int, optional
        What dropout is a function of, beside the text: seed and step. It is then the same for any number of
        ranks and any packs. Absent: it is drawn from torch's generator.

    Returns
    -------
    StepOutput
        Equal on all ranks.
    """
    # Deal the texts to ranks, and let each embed its own; then all have all embeddings.
    lengths = batch.lengths
    dealt = deal(lengths, world.size)
    own_texts, counts = dealt[world.rank], [len(texts) for texts in dealt]
    own_rows = torch.from_numpy(own_texts).to(world.device)
    in_order = torch.from_numpy(np.argsort(np.concatenate(dealt))).to(world.device)
    batch = batch.to(world.device)

    def embed(engine: Engine, store_tokens: int | None) -> tuple[EmbeddingPass, torch.Tensor]:
        with phase("forward"):
            embedded = EmbeddingPass(
                engine,
                batch,
                own_texts,
                pack_tokens=pack_tokens,
                store_tokens=store_tokens,
                autocast=autocast,
                dropout=dropout,
            )
        with phase("communication"):
            gathered = all_gather_rows(embedded.embeddings(), counts, world)
        return embedded, gathered[in_order]

    anchored = None if anchor is None else embed(Replicated(anchor, world), 0)[1]
    embedded, embeddings = embed(engine or Replicated(embedder, world), store_tokens)

    # Compare this rank's queries with all documents.
    with phase("loss"):
        gradient, sums = loss.compute(embeddings, batch, rank=world.rank, ranks=world.size, anchor=anchored)

    # Send back what all ranks' losses say about this rank's texts.
    with phase("communication"):
        gradient = sum_over_ranks(gradient, world)
    with phase("backward"):
        embedded.backward(gradient[own_rows])

    # Say what was measured, over all ranks.
    computed = torch.tensor(embedded.computed_tokens, dtype=torch.float64, device=world.device)
    computed_tokens, *totals = sum_over_ranks(torch.stack([computed, *sums.values()]), world).tolist()
    measures = loss.finish(dict(zip(sums, totals, strict=True)))
    return StepOutput(
        loss=measures.pop("loss"),
        accuracy=measures.pop("accuracy"),
        tokens=int(lengths.sum()),
        computed_tokens=int(computed_tokens),
        imbalance=imbalance(lengths, dealt),
        parts=measures,
    )
