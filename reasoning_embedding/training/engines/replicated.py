"""Every rank holds the full model: plain data parallelism."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

from torch import Tensor

from reasoning_embedding.backbones import Embedder
from reasoning_embedding.distributed import GradientSum, World

from ..timers import phase
from .base import Engine, MakeOptimizer


class Replicated(Engine):
    """Whole parameters on every rank; gradients are summed in buckets, during the last backward pass and after it.

    Parameters
    ----------
    embedder : Embedder
        The model, equal on all ranks.
    world : World
        The job.
    make_optimizer : callable, optional
        Absent: gradients only.
    max_norm : float, optional
        Longest gradient; a longer one is scaled to it.
    """

    def __init__(
        self,
        embedder: Embedder,
        world: World,
        make_optimizer: MakeOptimizer | None = None,
        *,
        max_norm: float | None = None,
    ) -> None:
        super().__init__(embedder, world, max_norm=max_norm)
        self._optimizer = make_optimizer(embedder) if make_optimizer is not None else None
        self._sum = GradientSum(embedder.parameters(), world)

    @contextlib.contextmanager
    def summing(self) -> Generator[None]:
        """Add up the backward passes inside, then sum over ranks."""
        yield
        with phase("communication"):
            self._sum.finish()

    def backward(self, embeddings: Tensor, gradient: Tensor, *, last: bool) -> None:
        """Accumulate locally; what the last pass completes is sent while it goes on."""
        with self._sum.last_pass() if last else contextlib.nullcontext():
            embeddings.backward(gradient)

    def weights(self, *, everywhere: bool = False) -> dict[str, Tensor]:
        """Return the module's own state dict: every rank holds it."""
        return dict(self.embedder.state_dict())

    def optimizer_state(self) -> dict[str, Any]:
        """Return the optimizer's own state: every rank holds it."""
        return self.optimizer.state_dict()

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Load it on every rank."""
        self.optimizer.load_state_dict(state)
