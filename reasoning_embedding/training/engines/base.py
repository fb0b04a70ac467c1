"""What the step, the loop and the checkpoints need of an engine, and nothing of how it works."""

from __future__ import annotations

import contextlib
import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import Any

import torch
from torch import Tensor, nn

from reasoning_embedding.backbones import Embedder, Pack, head_state_dicts, merged_state_dict, stock_model
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
    equal_forwards : bool
        Whether all ranks must run equally many forwards, because each is a collective.
    """

    equal_forwards = False

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

    def update(self, learning_rate: float) -> float:
        """Clip the gradient by its global norm, take the optimizer's step and forget the gradient.

        Returns
        -------
        float
            The gradient's norm before clipping, equal on all ranks. Where it is not finite the weights
            stay as they are.
        """
        norm = self._clip()
        value = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # ty: ignore[not-callable]
        if math.isfinite(value):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return value

    def _clip(self) -> Tensor:
        """Scale the gradient to the longest norm, if it is longer; return its norm before."""
        trained = [p for p in self.embedder.parameters() if p.requires_grad]
        return torch.nn.utils.clip_grad_norm_(trained, self.max_norm)

    @abstractmethod
    def weights(self, *, everywhere: bool = False) -> dict[str, Tensor]:
        """Gather the embedder's state dict, no tensor of it in shards; all ranks call it.

        Parameters
        ----------
        everywhere : bool
            Whether every rank gets it; else the main rank does, in host memory, and the others get none of it.
        """

    @abstractmethod
    def optimizer_state(self) -> dict[str, Any]:
        """Gather what ``optimizer.state_dict()`` of the replicated engine would be; all ranks call it.

        The main rank gets all of it; it does not depend on the number of ranks, nor on the engine.
        """

    @abstractmethod
    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`optimizer_state` gave, whatever engine or number of ranks gave it."""

    def state_elements(self) -> int:
        """Count the elements whose optimizer state this rank's device holds, or will hold; offloaded ones do not."""
        trained = [_local(p) for p in self.embedder.parameters() if p.requires_grad]
        return sum(p.numel() for p in trained if p.device.type == self.world.device.type)

    def full_embedder(self) -> Embedder:
        """Return an embedder that each rank can use by itself, for scoring; all ranks call it."""
        return self.embedder


def _local(parameter: Tensor) -> Tensor:
    to_local = getattr(parameter, "to_local", None)  # a DTensor's shard
    return to_local() if to_local is not None else parameter


def full_copy(engine: Engine) -> Embedder:
    """Build an embedder of all weights from a sharded one on every rank, adapters merged, on the rank's device.

    Each rank then holds all weights once more, for as long as the copy lives.
    """
    from accelerate import init_empty_weights

    stock = stock_model(engine.embedder)
    complete = engine.weights(everywhere=True)
    weights = merged_state_dict(engine.embedder, complete)
    settings = copy.deepcopy(stock.config)
    with init_empty_weights(include_buffers=False):
        model = type(stock)(settings)
    model.load_state_dict(weights, assign=True)
    model.set_attn_implementation(stock.config._attn_implementation)
    own = engine.embedder
    embedder = Embedder(
        model,
        own.tokenizer,
        own.readout,
        own.prompts,
        default_prompt_name=own.default_prompt_name,
        max_tokens=own.max_tokens,
    )
    for head, tensors in zip(embedder.heads, head_state_dicts(own, complete), strict=True):
        head.load_state_dict(tensors, assign=True)
    return embedder.to(engine.world.device)
