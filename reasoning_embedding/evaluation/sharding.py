"""Encoding on several ranks: each takes its share of the texts, and all get all embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist

from reasoning_embedding.distributed import World, all_gather_rows, broadcast_object, deal, max_over_ranks
from reasoning_embedding.errors import ReasoningEmbeddingError


class TextEncoder(Protocol):
    """What can be scored: texts in, unit vectors out."""

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        ...

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        max_tokens: int | None = None,
        pack_tokens: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Return float32 embeddings (len(texts), dimension) of unit norm."""
        ...


class ShardedEncoder:
    """An encoder whose texts are dealt to the ranks by length.

    Parameters
    ----------
    encoder : TextEncoder
        This rank's copy of the model.
    world : World
        The job; all ranks call together, with the same texts.
    """

    def __init__(self, encoder: TextEncoder, world: World) -> None:
        self.encoder = encoder
        self.world = world

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return self.encoder.dimension

    def encode(self, texts: Sequence[str], *, prompt: str = "", **options: Any) -> np.ndarray:
        """Encode this rank's share and gather those of the others; the progress is this rank's.

        Parameters
        ----------
        texts, prompt, **options
            As :meth:`TextEncoder.encode` has them.

        Raises
        ------
        ReasoningEmbeddingError
            On every rank when any of them fails; the one that failed raises its own error.
        """
        # Characters stand for tokens: what is dealt need only be even, not exact.
        shares = deal(np.array([len(prompt) + len(text) for text in texts]), self.world.size)
        mine = shares[self.world.rank]
        rows = np.zeros((0, self.dimension), dtype=np.float32)
        failure: Exception | None = None
        if len(mine):
            try:
                rows = self.encoder.encode([texts[index] for index in mine], prompt=prompt, **options)
            except Exception as error:  # noqa: BLE001 - raised below, once the other ranks know
                failure = error
        failed = max_over_ranks(0 if failure is None else self.world.rank + 1, self.world)
        if failure is not None:
            raise failure
        if failed:
            raise ReasoningEmbeddingError(f"rank {failed - 1} failed to encode its share of the texts")
        counts = [len(share) for share in shares]
        gathered = all_gather_rows(torch.from_numpy(rows).to(self.world.device), counts, self.world)
        embeddings = np.empty((len(texts), self.dimension), dtype=np.float32)
        embeddings[np.concatenate(shares)] = gathered.cpu().numpy()
        return embeddings


def broadcast_array(array: np.ndarray | None, world: World) -> np.ndarray | None:
    """Return the main rank's float32 array, or its None, on every rank."""
    if world.size == 1:
        return array
    shape = broadcast_object(None if array is None else array.shape, world)
    if shape is None:
        return None
    tensor = torch.from_numpy(array) if array is not None and world.is_main else torch.empty(shape)
    tensor = tensor.to(world.device)
    dist.broadcast(tensor, src=0)
    return tensor.cpu().numpy()
