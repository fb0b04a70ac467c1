"""How much of a batch is kept for the backward pass: by the recipe, or by what fits in memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import psutil
import torch

from reasoning_embedding import config
from reasoning_embedding.backbones import Pack, make_packs
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.distributed import World, deal, max_over_ranks
from reasoning_embedding.errors import SetupError
from reasoning_embedding.host import at_most, host_memory
from reasoning_embedding.planning.memory import OPTIMIZER_BYTES, PLANNED_SHARE

from .activation_memory import Footprint, measure
from .engines import Engine
from .out_of_memory import is_out_of_memory, remedies

_MIB, _GIB = 2**20, 2**30


@dataclass(frozen=True)
class MemoryMode:
    """What a step keeps, and why.

    Attributes
    ----------
    mode : str
        ``store`` all activations, ``replay`` none, or ``hybrid``.
    store_tokens : int or None
        Tokens a rank whose activations are kept; None: all, whatever a batch brings.
    reason : str
        In words, for the log.
    bytes_per_token : int or None
        Measured activations of a token; None where nothing was measured.
    budget_bytes : int or None
        Memory for activations on each rank.
    """

    mode: Literal["store", "hybrid", "replay"]
    store_tokens: int | None
    reason: str
    bytes_per_token: int | None = None
    budget_bytes: int | None = None


def choose_memory_mode(
    training: config.Training, engine: Engine, batches: Sequence[Batch], autocast: torch.dtype | None
) -> MemoryMode:
    """Choose what a step keeps, equally on all ranks.

    Parameters
    ----------
    training : config.Training
        ``memory``, ``store_tokens``, ``memory_gib``, ``pack_tokens`` and ``activation_checkpointing``.
    engine : Engine
        Holds the model; for ``auto`` one pack goes through it forward and backward, with a gradient of zero.
    batches : sequence of Batch
        Some batches of the run: the first is probed, the largest decides whether all fit.
    autocast : torch.dtype, optional
        Compute dtype of the encoder.

    Raises
    ------
    SetupError
        If the device, or the memory that a recipe or a container allows, cannot hold one pack.

    Notes
    -----
    Every mode gives the same gradient, so a resumed run may choose another one. Let A be the memory free
    on the fullest rank less gradients and optimizer state to come, W the working memory of one pack and b
    the bytes a token keeps: (0.9 A - W) / b tokens are kept.
    """
    world = engine.world
    parts = [_largest_part(batch, world.size) for batch in batches]
    # The longest texts of the busiest rank: no rank runs a larger forward, and all ranks probe the same one.
    pack = make_packs(*parts[0], training.pack_tokens)[0][0]
    if training.memory != "auto" or training.store_tokens is not None:
        return _as_the_recipe_says(training, len(pack.input_ids))
    if training.activation_checkpointing in (True, "offload"):
        return MemoryMode("store", None, "layers keep their inputs alone, so nothing is embedded twice")
    most = max(sum(map(len, texts)) for texts, _ in parts)
    free = _free(training, engine)
    available = free - _still_to_allocate(training, engine)
    found = _probe(engine, pack, autocast, free=free, todo=_smaller_settings(training))
    needed = max_over_ranks(found.kept + found.working, world)
    least = -max_over_ranks(-available, world)
    if least < needed:
        raise SetupError(
            f"a pack of {len(pack.input_ids):,} tokens takes {needed / _MIB:,.1f} MiB; beside weights, gradients "
            f"and optimizer state {max(least, 0) / _MIB:,.1f} MiB are left for it",
            where="training.memory_gib"
            if training.memory_gib is not None
            else f"the memory of {world.device}",
            todo=_smaller_settings(training),
        )
    per_token = max_over_ranks(-(-found.kept // len(pack.input_ids)), world)
    budget = -max_over_ranks(-max(int(PLANNED_SHARE * available) - found.working, 0), world)
    return _as_much_as_fits(per_token, budget, most, len(pack.input_ids))


def _largest_part(batch: Batch, ranks: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Return texts and prompt lengths of the rank with the most tokens; equal on all ranks."""
    part = max(deal(batch.lengths, ranks), key=lambda texts: batch.lengths[texts].sum())
    return [batch.texts[text] for text in part], batch.prompt_lengths[part]


def _as_the_recipe_says(training: config.Training, pack: int) -> MemoryMode:
    tokens = 0 if training.memory == "replay" else training.store_tokens
    mode = "store" if tokens is None else "hybrid" if tokens else "replay"
    reason = "as the recipe says"
    if tokens and tokens < pack:
        reason += (
            f"; but a pack has {pack:,} tokens, more than {tokens:,}, so that none is kept: lower pack_tokens"
        )
    return MemoryMode(mode, tokens, reason)


def _as_much_as_fits(per_token: int, budget: int, most: int, pack: int) -> MemoryMode:
    tokens = budget // max(per_token, 1)
    mode = "store" if tokens >= most else "hybrid" if tokens >= pack else "replay"
    reason = (
        f"{per_token / 1024:,.1f} KiB a token, {budget / _GIB:.2f} GiB for activations: room for {tokens:,} of "
        f"the {most:,} tokens a rank of the largest batch"
    )
    if tokens < pack:
        reason += f", less than one pack of {pack:,}: the step may run out of memory"
    return MemoryMode(mode, 0 if mode == "replay" else tokens, reason, per_token, budget)


def _smaller_settings(training: config.Training) -> str:
    """What lowers the memory that ``auto`` found missing; no other memory mode does."""
    return f"set {'; or '.join(remedies(training.model_copy(update={'memory': 'replay'})))}"


def _probe(engine: Engine, pack: Pack, autocast: torch.dtype | None, *, free: int, todo: str) -> Footprint:
    device = engine.world.device
    on_device = pack.to(device)

    def forward() -> torch.Tensor:
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            return engine.forward(on_device)

    def backward(embeddings: torch.Tensor) -> None:
        with engine.summing():
            engine.backward(embeddings, torch.zeros_like(embeddings), last=True)

    try:
        with at_most(free) if device.type == "cpu" else contextlib.nullcontext():
            found = measure(forward, backward, device)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise SetupError(
            f"a pack of {len(pack.input_ids):,} tokens does not fit in the memory of {device}",
            where="training.pack_tokens",
            todo=todo,
        ) from error
    engine.embedder.zero_grad(set_to_none=True)
    return found


def _free(training: config.Training, engine: Engine) -> int:
    """Bytes this rank may still use."""
    free, used = device_memory(engine.world)
    if training.memory_gib is not None:
        free = min(free, int(training.memory_gib * _GIB) - used)
    return free


def _still_to_allocate(training: config.Training, engine: Engine) -> int:
    """Bytes of gradients and optimizer state that are not there yet."""
    trained = [p for p in engine.embedder.parameters() if p.requires_grad]
    # A gradient stays unsharded until the step's one reduction, on every engine (ZeRO-3 keeps the size aside).
    to_come = sum(getattr(p, "ds_numel", p.numel()) * p.element_size() for p in trained)
    if not engine.optimizer.state:
        to_come += engine.state_elements() * OPTIMIZER_BYTES[training.optimizer.kind]
    return to_come


def device_memory(world: World) -> tuple[int, int]:
    """Return free and used bytes of this rank's device; on a CPU the ranks of a machine share what is free."""
    if world.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(world.device)
        used = torch.cuda.memory_allocated(world.device)
        return free + torch.cuda.memory_reserved(world.device) - used, used
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    return host_memory().available // neighbours, psutil.Process().memory_info().rss
