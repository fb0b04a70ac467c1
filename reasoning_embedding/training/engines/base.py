"""What the step, the loop and the checkpoints need of an engine, and nothing of how it works."""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator

import torch
from torch import Tensor, nn

from reasoning_embedding.backbones import Embedder, Pack
from reasoning_embedding.distributed import World

#: Makes the optimizer of a module's trainable parameters, as the engine left them.
MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]


class Engine(ABC):
    """The ranks' hold on one model and its optimizer.

    A step runs its forwards, then one :meth:`backward` for each inside :meth:`summing`, then :meth:`update`.
    The gradient is the SUM of what the ranks send back, whatever the engine's own habit.

    Attributes
    ----------
    embedder : Embedder
        The module; its parameters may be shards.
    world : World
        The job.
    sharded : bool
        Whether ranks exchange parameters in every forward, so that all must run equally many.
    """

    sharded = False

    def __init__(self, embedder: Embedder, world: World, *, max_norm: float | None = None) -> None:
        self.embedder, self.world = embedder, world
        self.max_norm = math.inf if max_norm is None else max_norm
        self._optimizer: torch.optim.Optimizer | None = None

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer; an engine without one only computes gradients."""
        if self._optimizer is None:
            raise RuntimeError("this engine was built without an optimizer")
        return self._optimizer

    def forward(self, pack: Pack) -> Tensor:
        """Embed the n texts of a pack: (n, D); a pack without texts takes part all the same."""
        return self.embedder(pack)

    @contextlib.contextmanager
    def summing(self) -> Generator[None]:
        """Add up the backward passes inside; when left, their sum over all ranks is the gradient."""
        yield

    @abstractmethod
    def backward(self, embeddings: Tensor, gradient: Tensor, *, last: bool) -> None:
        """Send the (n, D) gradient of a forward's embeddings through the model; `last` of this step or not."""

    @abstractmethod
    def update(self, learning_rate: float) -> float:
        """Clip the gradient, take the optimizer's step and forget the gradient.

        Returns
        -------
        float
            The gradient's norm before clipping, equal on all ranks. Where it is not finite the weights
            stay as they are.
        """
