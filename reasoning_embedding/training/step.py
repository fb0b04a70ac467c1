"""One contrastive step: the whole mathematics, from tokens to summed gradients.

Every rank embeds its share of the batch's distinct texts, all embeddings are gathered, each rank takes the
loss of its own query rows against all documents, and the gradient with respect to the embeddings is summed
over ranks before it flows back through the encoder. The result is the gradient of one process that holds
the whole batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder, Pack, make_packs
from reasoning_embedding.data.bag import Bag
from reasoning_embedding.distributed import World, all_gather_rows, deal, sum_gradients, sum_over_ranks
from reasoning_embedding.losses import Loss, embedding_gradient, infonce


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
    store_tokens : int, optional
        Tokens of this rank whose activations are kept; the rest is embedded again for its gradient
        (GradCache, arXiv 2101.06983). Absent: all are kept. The gradient is the same.
    tile_rows : int
        Queries scored at a time: no tensor of the loss is larger than tile_rows x C.
    autocast : torch.dtype, optional
        Compute dtype of the encoder; pooling, loss and gradients stay in float32.

    Returns
    -------
    StepOutput
        Equal on all ranks.
    """
    lengths = bag.lengths
    shares = deal(lengths, world.size)
    share = _Share(embedder, bag, shares[world.rank], pack_tokens, store_tokens, autocast)

    gathered = all_gather_rows(share.embeddings(), [len(texts) for texts in shares], world)
    position = torch.from_numpy(np.argsort(np.concatenate(shares))).to(world.device)
    embeddings = gathered[position]

    query, document = (torch.from_numpy(texts).to(world.device) for texts in (bag.query, bag.document))
    rows = torch.arange(len(query), device=world.device)[world.rank :: world.size]
    part = embedding_gradient(embeddings, query, document, rows, loss, tile_rows=tile_rows)
    gradient = sum_over_ranks(part.gradient, world)
    share.backward(gradient[torch.from_numpy(shares[world.rank]).to(world.device)])
    sum_gradients(embedder.parameters(), world)

    sums = sum_over_ranks(torch.stack([part.loss, part.accuracy]), world).tolist()
    tokens = int(lengths.sum())
    return StepOutput(sums[0], sums[1], tokens, tokens)


@dataclass
class _Piece:
    """One pack: its texts' places in the share, its embeddings, and how to make them again."""

    pack: Pack
    indices: Tensor
    embeddings: Tensor
    random_state: list[Tensor] | None


class _Share:
    """This rank's texts, embedded once; what is not stored is embedded again when its gradient comes."""

    def __init__(
        self,
        embedder: Embedder,
        bag: Bag,
        texts: np.ndarray,
        pack_tokens: int,
        store_tokens: int | None,
        autocast: torch.dtype | None,
    ) -> None:
        self._embedder, self._autocast, self._size = embedder, autocast, len(texts)
        self._pieces: list[_Piece] = []
        room = float("inf") if store_tokens is None else store_tokens
        packs = make_packs([bag.texts[text] for text in texts], bag.prompt_lengths[texts], pack_tokens)
        for host_pack, indices in packs:
            pack = host_pack.to(embedder.device)
            room -= len(pack.input_ids)
            # The same dropout is drawn again only from the same state.
            state = None if room >= 0 else _random_state(embedder.device)
            with torch.set_grad_enabled(state is None):
                embeddings = self._forward(pack)
            self._pieces.append(
                _Piece(pack, torch.from_numpy(indices).to(embedder.device), embeddings, state)
            )

    def embeddings(self) -> Tensor:
        """(texts, D), detached, in the order of the share."""
        like = next(self._embedder.parameters())
        dtype = self._pieces[0].embeddings.dtype if self._pieces else like.dtype
        out = torch.zeros(self._size, self._embedder.dimension, device=like.device, dtype=dtype)
        for piece in self._pieces:
            out[piece.indices] = piece.embeddings.detach()
        return out

    def backward(self, gradient: Tensor) -> None:
        """Send the (texts, D) gradient through the encoder, pack by pack, each pack's activations freed."""
        while self._pieces:
            piece = self._pieces.pop()
            embeddings = piece.embeddings
            if piece.random_state is not None:
                with _restored(piece.random_state, self._embedder.device):
                    embeddings = self._forward(piece.pack)
            embeddings.backward(gradient[piece.indices].to(embeddings.dtype))

    def _forward(self, pack: Pack) -> Tensor:
        if self._autocast is None:
            return self._embedder(pack)
        with torch.autocast(pack.input_ids.device.type, dtype=self._autocast):
            return self._embedder(pack)


def _random_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


@contextlib.contextmanager
def _restored(states: list[Tensor], device: torch.device) -> Generator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.set_rng_state(states[0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(states[1], device)
        yield
