"""What a run will cost on the processor at hand: its rate of products is measured, the rest is computed."""

from __future__ import annotations

import time
from typing import Any

from reasoning_embedding import config
from reasoning_embedding.config import EngineSettings
from reasoning_embedding.host import host_memory

from .memory import trained_parameters
from .plan import memory_and_mode, planned_steps
from .shapes import DecoderShape, training_flops
from .texts import TextLengths

#: Share of the measured rate that a whole step is taken to reach, attention, norms, loss and optimizer included: an
#: assumption, not a measurement. What a run reaches is in its log after the first steps.
_SHARE = 0.5
#: Tokens whose products are timed, and for how long.
_TOKENS, _SECONDS = 1024, 0.4


def products_rate(shape: DecoderShape, training: config.Training) -> tuple[float, str]:
    """Return the operations a second that this processor does of a layer's products, and in which type.

    Parameters
    ----------
    shape : DecoderShape
        Its widths are those that are timed.
    training : config.Training
        Precision and threads.
    """
    import torch

    from reasoning_embedding.backbones.precision import compute_dtype
    from reasoning_embedding.isolation import threads

    dtype = compute_dtype(training.precision, torch.device("cpu")) or torch.float32
    with threads(training.threads):
        states = torch.ones(_TOKENS, shape.hidden, dtype=dtype)
        matrix = torch.ones(shape.hidden, shape.intermediate, dtype=dtype)
        states @ matrix  # what is slow only once
        done, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < _SECONDS or not done:
            states @ matrix
            done += 1
    return done * 2 * _TOKENS * shape.hidden * shape.intermediate / elapsed, str(dtype).removeprefix("torch.")


def processor_cost(settings: config.RunConfig, shape: DecoderShape, texts: TextLengths) -> dict[str, Any]:
    """Return what a step and the whole run cost on this processor, as one rank.

    Returns
    -------
    dict
        ``rate`` (operations a second, measured), ``dtype``, ``share`` (of it that a step is taken to reach), ``threads``,
        ``memory_bytes`` by part, ``memory_available``, ``fits``, ``mode``, ``tokens_per_step``, ``step_seconds``,
        ``tokens_per_second``, ``steps``, ``hours``.
    """
    import torch

    training = settings.training
    rate, dtype = products_rate(shape, training)
    available = float(host_memory().available)
    if training.memory_gib is not None:
        available = min(available, training.memory_gib * 2**30)
    engine = EngineSettings(config.engine.ENGINES[0])
    memory, load, mode = memory_and_mode(settings, shape, texts, 1, engine, available)
    memory.pop("framework")
    squares = load.tokens * texts.mean_square / texts.mean
    work = training_flops(shape, load.tokens, squares, full=training.lora is None)
    again = 1.0 if training.activation_checkpointing in (True, "offload") else 1 - load.stored / load.tokens
    work += again * training_flops(shape, load.tokens, squares) / 3
    # Three products of all queries with all documents, in float32: counted at the same rate.
    work += 6 * load.queries * load.documents * shape.hidden
    seconds = work / (rate * _SHARE)
    steps = planned_steps(training, texts)
    return {
        "parameters": shape.parameters,
        "trained_parameters": trained_parameters(shape, training.lora),
        "rate": rate,
        "dtype": dtype,
        "share": _SHARE,
        "threads": training.threads or torch.get_num_threads(),
        "memory_bytes": memory,
        "memory_available": available,
        "fits": sum(memory.values()) <= available,
        "mode": mode,
        "texts": {"mean": texts.mean, "each": texts.each, "source": texts.source, "rows": texts.rows},
        "tokens_per_step": load.tokens,
        "step_seconds": seconds,
        "tokens_per_second": load.tokens / seconds,
        "steps": steps,
        "hours": None if steps is None else steps * seconds / 3600,
    }
