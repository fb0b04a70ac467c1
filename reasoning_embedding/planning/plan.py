"""What a run will cost, before any GPU is rented: memory, time and the memory mode, from its recipe."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from reasoning_embedding import config
from reasoning_embedding.config import EngineSettings
from reasoning_embedding.config.engine import ENGINES
from reasoning_embedding.errors import InputError

from .devices import Device, gpu_named
from .memory import (
    PLANNED_SHARE,
    RankLoad,
    activation_bytes,
    batch_memory,
    fixed_memory,
    offloaded_activations,
    offloaded_memory,
    reduction_memory,
    trained_parameters,
)
from .shapes import DecoderShape, training_flops
from .texts import TextLengths
from .time import (
    DERATING,
    anchor_seconds,
    communication_bytes,
    compute_seconds,
    copied_bytes,
    copy_rate,
    forward_seconds,
    host_step_seconds,
    link_rate,
    loss_seconds,
)

#: CUDA context, kernels and NCCL's buffers.
_FRAMEWORK = 1.5e9


def cost(
    settings: config.RunConfig,
    shape: DecoderShape,
    texts: TextLengths,
    *,
    gpus: int,
    gpu: str,
    engine: EngineSettings | None = None,
) -> dict[str, Any]:
    """Return what a step and the whole run cost under each engine.

    Parameters
    ----------
    settings : config.RunConfig
        The run.
    shape : DecoderShape
        Its backbone.
    texts : TextLengths
        Its texts.
    gpus : int
        Ranks, 1 or more.
    gpu : str
        Name of the GPU.
    engine : EngineSettings, optional
        The engine to plan for, as a launcher's file asks for it. Absent: every engine there is a choice of, without
        offloading.

    Returns
    -------
    dict
        ``gpu``, ``gpus``, ``parameters``, ``texts``, ``tokens_per_step``, ``steps``; ``engines``, one dict each
        with ``fits``, ``mode``, ``memory_bytes`` and ``host_memory_bytes`` of a rank by part, ``communication_bytes``,
        ``step_seconds``, ``mfu``, ``hours``, ...; and ``engine``, the fastest of those that fit (None where none does).

    Raises
    ------
    InputError
        If there is no such GPU, or the batch has fewer queries than there are GPUs.

    Notes
    -----
    A step is compute at the roofline over 0.8, plus what is sent and cannot hide behind it: embeddings entirely,
    replicated gradients where they take longer than the backward pass of the last pack, gathered parameters and
    weights that come from the host where they take longer than the compute. All else that goes to the host and back is
    waited for, and so is a step of the optimizer there.
    """
    device = gpu_named(gpu)
    batch = settings.training.batch_size
    if gpus > batch:
        raise InputError(
            f"{gpus} GPUs share {batch} queries a step, so some would have none",
            where="training.batch_size",
            todo=f"raise it to at least {gpus}, or plan with fewer GPUs",
        )
    steps = planned_steps(settings.training, texts)
    engines = [engine] if engine is not None else _choice(gpus, settings.training)
    found = {one.name: _step_cost(settings, shape, texts, device, gpus, one) for one in engines}
    for one in found.values():
        one["hours"] = None if steps is None else steps * one["step_seconds"] / 3600
    fitting = [name for name, one in found.items() if one["fits"]]
    return {
        "gpu": gpu,
        "gpus": gpus,
        "parameters": shape.parameters,
        "trained_parameters": trained_parameters(shape, settings.training.lora),
        "activation_bytes_per_token": activation_bytes(shape, settings.training),
        "texts": asdict(texts),
        "tokens_per_step": batch * texts.each * texts.mean,
        "steps": steps,
        "engines": found,
        "engine": min(fitting, key=lambda name: found[name]["step_seconds"]) if fitting else None,
    }


def planned_steps(training: config.Training, texts: TextLengths) -> int | None:
    """Return the steps of a run; None where neither they nor its rows are known."""
    if training.steps or not texts.rows:
        return training.steps
    return max(1, round((training.epochs or 1) * (texts.rows // training.batch_size)))


def _choice(gpus: int, training: config.Training) -> list[EngineSettings]:
    """Engines that the trainer would not refuse."""
    every = gpus > 1 and training.optimizer.kind == "adamw"
    return [EngineSettings(name) for name in (ENGINES if every else ENGINES[:1])]


def _step_cost(
    settings: config.RunConfig,
    shape: DecoderShape,
    texts: TextLengths,
    device: Device,
    gpus: int,
    engine: EngineSettings,
) -> dict[str, Any]:
    """Memory, traffic and time of one step on one rank under one engine."""
    training, anchored = settings.training, settings.loss.anchor is not None
    capacity = min(device.memory_gb * 1e9, (training.memory_gib or math.inf) * 2**30)
    memory, load, mode = memory_and_mode(settings, shape, texts, gpus, engine, capacity)
    tokens, squares = load.tokens, load.tokens * texts.mean_square / texts.mean
    compute, last_pass = _compute(training, shape, load, squares, device)
    compute["loss"] = loss_seconds(load, shape.hidden, gpus, device) / DERATING
    if anchored:
        compute["anchor"] = anchor_seconds(shape, training, load, squares, device) / DERATING
    passes = math.ceil(tokens / load.pack) * (2 + (load.stored < tokens))
    sent = communication_bytes(shape, training, engine, gpus, load, passes=passes, anchored=anchored)
    copied = copied_bytes(shape, training, engine, gpus, load, passes=passes)
    copies = {name: size / copy_rate(device) for name, size in copied.items()}
    rate = link_rate(device, gpus)
    busy = sum(compute.values())
    hidden = sent.get("parameters", 0.0) / rate if engine.is_sharded else 0.0
    behind_last = min(sent["gradients"] / rate, last_pass) if engine.name == "replicated" else 0.0
    fetched = copies.get("weights", 0.0)
    on_host = host_step_seconds(shape, training, engine, gpus)
    exposed = sum(sent.values()) / rate - hidden - behind_last + sum(copies.values()) - fetched + on_host
    seconds = max(busy, hidden, fetched) + exposed
    useful = training_flops(shape, tokens, squares, full=training.lora is None)
    host = offloaded_memory(shape, training, engine, gpus)
    return {
        "fits": sum(memory.values()) <= capacity,
        "mode": mode,
        "store_tokens": None if mode == "store" else int(load.stored),
        "memory_bytes": memory,
        "memory_total": sum(memory.values()),
        "host_memory_bytes": host | {"activations": offloaded_activations(shape, training, load)},
        "communication_bytes": sent,
        "communication_seconds": sum(sent.values()) / rate,
        "host_seconds": copies | {"optimizer": on_host},
        "compute_seconds": compute,
        "step_seconds": seconds,
        "tokens_per_second": tokens * gpus / seconds,
        "mfu": useful / seconds / (device.tflops * 1e12),
    }


def memory_and_mode(
    settings: config.RunConfig,
    shape: DecoderShape,
    texts: TextLengths,
    gpus: int,
    engine: EngineSettings,
    capacity: float,
) -> tuple[dict[str, float], RankLoad, str]:
    """One rank's memory by part, its load, and the memory mode."""
    training = settings.training
    fixed = fixed_memory(shape, training, engine, gpus) | {"framework": _FRAMEWORK}
    if settings.loss.anchor is not None:
        # The backbone before its first step, whole on every rank, and six copies of the embeddings to compare.
        distinct = training.batch_size * texts.each
        fixed["anchor"] = 4.0 * shape.parameters + 6 * 4 * distinct * shape.hidden
    in_batch = partial(batch_memory, shape, training, loss=settings.loss, cast=engine.name != "fsdp2")
    room = PLANNED_SHARE * (capacity - sum(fixed.values()))
    load, mode = _choose(training, texts, gpus, lambda load: sum(in_batch(load).values()), room)
    batch = in_batch(load)
    # Gradients are reduced when what the batch asked for is gone: only what that takes beyond it counts.
    beyond = reduction_memory(shape, training, engine, gpus) - sum(batch.values())
    return fixed | batch | {"reduction": max(0.0, beyond)}, load, mode


def _compute(
    training: config.Training, shape: DecoderShape, load: RankLoad, squares: float, device: Device
) -> tuple[dict[str, float], float]:
    """Seconds of the encoder by kind of work, and those of the last pack's backward pass."""
    compute = compute_seconds(shape, training, load.tokens, squares, device)
    compute = {name: seconds / DERATING for name, seconds in compute.items()}
    forward = forward_seconds(compute, frozen=training.lora is not None)
    last_pass = (sum(compute.values()) - forward) * load.pack / load.tokens
    recomputed = training.activation_checkpointing in (True, "offload")
    again = forward * (1 if recomputed else 1 - load.stored / load.tokens)
    if training.activation_checkpointing == "selective":
        again += (compute["elementwise"] + compute["eager_kernels"]) / 3
    return compute | {"second_forward": again}, last_pass


def _choose(
    training: config.Training, texts: TextLengths, gpus: int, needs: Callable[[RankLoad], float], room: float
) -> tuple[RankLoad, str]:
    """Return one rank's load and the memory mode: the recipe's, or what `room` bytes allow."""
    batch = training.batch_size
    tokens = batch * texts.each * texts.mean / gpus
    pack = tokens / math.ceil(tokens / training.pack_tokens)
    documents = round(batch * (texts.each - 1))

    def load(stored: float) -> RankLoad:
        return RankLoad(tokens, stored, pack, round(batch * texts.each), batch, documents)

    if training.memory == "replay" or training.store_tokens == 0:
        return load(0.0), "replay"
    if training.store_tokens is not None and training.store_tokens < tokens:
        return load(float(training.store_tokens)), "hybrid"
    if training.memory == "store" or training.activation_checkpointing in (True, "offload"):
        return load(tokens), "store"
    none, whole = needs(load(0.0)), needs(load(tokens))
    if whole <= room:
        return load(tokens), "store"
    # Between one pack and the whole share, memory grows evenly with the tokens that are stored.
    stored = pack + (room - none) * (tokens - pack) / max(whole - none, 1.0)
    return (load(stored), "hybrid") if stored > pack else (load(0.0), "replay")
