"""From what the launcher asks for to an engine."""

from __future__ import annotations

import torch

from reasoning_embedding.backbones import Embedder
from reasoning_embedding.config import EngineSettings
from reasoning_embedding.distributed import World

from .base import Engine, MakeOptimizer
from .replicated import Replicated


def build_engine(
    settings: EngineSettings,
    embedder: Embedder,
    world: World,
    make_optimizer: MakeOptimizer,
    *,
    max_norm: float | None,
    compute: torch.dtype | None,
) -> Engine:
    """Hand a model, full and equal on all ranks, to the engine that the launcher asks for.

    Parameters
    ----------
    settings : EngineSettings
        What the launcher asks for, checked against the recipe.
    embedder : Embedder
        The model, on this rank's device; a sharding engine cuts it in place.
    world : World
        The job.
    make_optimizer : callable
        Makes the optimizer of a module's trainable parameters.
    max_norm : float, optional
        Longest gradient; a longer one is scaled to it.
    compute : torch.dtype, optional
        What layers compute in, for engines that cast by themselves.
    """
    if settings.name == "fsdp2":
        from .fsdp2 import FSDP2

        return FSDP2(embedder, world, make_optimizer, max_norm=max_norm, compute=compute, settings=settings)
    if settings.is_deepspeed:
        from .zero import ZeRO

        return ZeRO(embedder, world, make_optimizer, max_norm=max_norm, compute=compute, settings=settings)
    return Replicated(embedder, world, make_optimizer, max_norm=max_norm)
