"""Embedding one rank's texts of a step: once, and again where nothing was kept for the gradient."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reasoning_embedding.backbones import Pack, make_packs, text_keys
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.distributed import max_over_ranks

from .engines import Engine
from .timers import phase


@dataclass
class _EmbeddedPack:
    """One forward: the places of its texts among the rank's, what came out, and how to run it again."""

    pack: Pack
    places: Tensor
    embeddings: Tensor
    random_state: list[Tensor] | None
    """From before the forward; None: its activations were kept."""


class EmbeddingPass:
    """A rank's texts of one batch, embedded; what was not stored is embedded again when its gradient comes.

    Where the engine asks for it, every rank runs as many forwards as the busiest one, in the same
    order of kept and repeated ones: each forward is a collective.

    Parameters
    ----------
    engine : Engine
        Holds the model.
    batch : Batch
        The whole batch.
    texts : np.ndarray
        Which of its texts are this rank's.
    pack_tokens : int
        Most tokens in one forward.
    store_tokens : int, optional
        Tokens of this rank whose activations are kept. Absent: all.
    autocast : torch.dtype, optional
        Compute dtype of the encoder.
    dropout : tuple of int, optional
        What dropout is a function of, beside the text: seed and step. Absent: torch's generator.

    Attributes
    ----------
    computed_tokens : int
        Tokens of the packs, padding included.
    """

    def __init__(
        self,
        engine: Engine,
        batch: Batch,
        texts: np.ndarray,
        *,
        pack_tokens: int = 16384,
        store_tokens: int | None = None,
        autocast: torch.dtype | None = None,
        dropout: tuple[int, ...] | None = None,
    ) -> None:
        self._engine, self._autocast, self._size = engine, autocast, len(texts)
        self._waiting: list[_EmbeddedPack] = []
        device = engine.world.device
        packs = _packs(engine, batch, texts, pack_tokens)
        self.computed_tokens = sum(len(pack.input_ids) for pack, _ in packs)
        stored = _stored([pack for pack, _ in packs], store_tokens)
        if engine.equal_forwards:
            stored = -max_over_ranks(-stored, engine.world)
        if dropout is not None:
            keys = text_keys(len(batch.texts), *dropout)[texts]
            packs = [(pack.with_dropout(keys[places]), places) for pack, places in packs]
        # All goes to the device first: a GPU would finish one forward before it took the next one's input.
        on_device = [(pack.to(device), torch.from_numpy(places).to(device)) for pack, places in packs]
        for number, (pack, places) in enumerate(on_device):
            # What a backbone draws by itself is drawn again only from the same state.
            state = None if number < stored else _random_state(device)
            with torch.set_grad_enabled(state is None):
                embeddings = self._forward(pack)
            self._waiting.append(_EmbeddedPack(pack, places, embeddings, state))

    def __len__(self) -> int:
        """Return the forwards whose gradient is still to come."""
        return len(self._waiting)

    def embeddings(self) -> Tensor:
        """(texts, D), detached, in the order of the rank's texts."""
        embedder = self._engine.embedder
        dtype = torch.promote_types(next(embedder.parameters()).dtype, torch.float32)
        out = torch.zeros(self._size, embedder.dimension, device=self._engine.world.device, dtype=dtype)
        for done in self._waiting:
            out[done.places] = done.embeddings.detach()
        return out

    def backward(self, gradient: Tensor) -> None:
        """Send the (texts, D) gradient through the encoder and sum over ranks.

        Pack by pack, the kept ones first: their activations are freed before others are made again.
        """
        with self._engine.summing():
            while self._waiting:
                done = self._waiting.pop(0)
                embeddings = done.embeddings
                if done.random_state is not None:
                    with phase("forward"), _restored(done.random_state, self._engine.world.device):
                        embeddings = self._forward(done.pack)
                own = gradient[done.places].to(embeddings.dtype)
                self._engine.backward(embeddings, own, last=not self._waiting)

    def _forward(self, pack: Pack) -> Tensor:
        if self._autocast is None:
            return self._engine.forward(pack)
        with torch.autocast(pack.input_ids.device.type, dtype=self._autocast):
            return self._engine.forward(pack)


def _packs(
    engine: Engine, batch: Batch, texts: np.ndarray, pack_tokens: int
) -> list[tuple[Pack, np.ndarray]]:
    tokens, prompts = [batch.texts[text] for text in texts], batch.prompt_lengths[texts]
    streams = engine.world.device.type == "cuda"
    packs = make_packs(tokens, prompts, pack_tokens, streams=streams) if len(texts) else []
    if engine.equal_forwards:
        most = max_over_ranks(len(packs), engine.world)
        if len(packs) < most:
            packs = make_packs(tokens, prompts, pack_tokens, at_least=most, streams=streams)
    return packs


def _stored(packs: list[Pack], store_tokens: int | None) -> int:
    """How many of the packs, from the first, fit in `store_tokens`."""
    if store_tokens is None:
        return len(packs)
    tokens = np.cumsum([len(pack.input_ids) for pack in packs])
    return int((tokens <= store_tokens).sum())


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
