"""Out of memory: which settings hold it, and what to set them to."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import torch

from reasoning_embedding import config
from reasoning_embedding.errors import TrainingError

#: What allocators say that raise a plain RuntimeError: the CPU's, a CUDA driver's, NCCL's and cuBLAS's.
_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
#: Fewer tokens a forward than this save nothing that matters.
_FEWEST_TOKENS = 512


@contextlib.contextmanager
def explain_out_of_memory(training: config.Training) -> Generator[None]:
    """Turn a full device or machine into an error that names the knob and the value to try.

    Raises
    ------
    TrainingError
        With the smallest change first; checkpoints that were written stay.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).split("\n")[0].strip()
        raise TrainingError(
            f"out of memory{f' ({said})' if said else ''}",
            where="training",
            todo=f"set {'; or '.join(remedies(training))}; a run that has begun needs another name for it",
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether that is what an allocator said."""
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or any(words in str(error) for words in _WORDS)


def remedies(training: config.Training) -> list[str]:
    """Return what lowers the memory of a step, the cheapest first, each as an override.

    Parameters
    ----------
    training : config.Training
        The settings that did not fit.

    Notes
    -----
    Memory modes and ``pack_tokens`` leave the gradient as it is. ``auto`` keeps what fits, ``replay`` one pack's
    activations at a time, so that then only the pack itself, the weights and the optimizer are left to shrink.
    """
    found: list[str] = []
    kept = training.store_tokens
    if kept:
        found.append(f"training.store_tokens={kept // 2} (now {kept})")
    elif training.activation_checkpointing not in (True, "offload") and kept is None:
        better = {"store": "auto", "auto": "replay"}.get(training.memory)
        found += [f"training.memory={better} (now {training.memory})"] if better else []
    if training.pack_tokens >= 2 * _FEWEST_TOKENS:
        found.append(f"training.pack_tokens={training.pack_tokens // 2} (now {training.pack_tokens})")
    if training.memory != "hybrid" and training.activation_checkpointing is False:
        found.append("training.activation_checkpointing=selective (now false)")
    if training.lora is None:
        found.append("training.lora.rank=16 (now all weights are trained)")
    return found or [f"training.batch_size={max(1, training.batch_size // 2)} (now {training.batch_size})"]
