"""Peak memory of one training step of one side, in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import resource
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

from benchmarks.train_sides import MakeSide, Setting, Workload
from reasoning_embedding import config
from reasoning_embedding.backbones import packs_for
from reasoning_embedding.config import EngineSettings
from reasoning_embedding.planning.memory import RankLoad, batch_memory, fixed_memory
from reasoning_embedding.planning.shapes import DecoderShape

MIB = 2**20


def peak_mib(side: MakeSide, work: Workload, setting: Setting, batches: Sequence[Sequence[int]]) -> float:
    """Return by how many MiB the step exceeds the process that holds model and libraries.

    Parameters
    ----------
    side : callable
        :class:`~.bench_train_sides.Ours` or :class:`~.bench_train_sides.SentenceTransformers`.
    work : Workload
        What it trains.
    setting : dict
        The side's setting.
    batches : sequence of sequence of int
        A small batch first, which loads what the trainer imports late and makes the optimizer's state; then
        the one whose step is measured.

    Notes
    -----
    Gradients, optimizer state, activations and the loss count; weights, interpreter and libraries do not.
    On a CPU the process is forked from a server that has imported the libraries but computed nothing.
    """
    # A library that asked for a GPU when it was imported leaves CUDA unusable in a fork.
    context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "forkserver")
    context.set_forkserver_preload(["sentence_transformers.sentence_transformer.trainer", __name__])
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # what this process has freed is the other's to take
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measure, side, work, setting, batches).result()


def predicted_mib(
    shape: DecoderShape, lengths: np.ndarray, setting: Setting, *, compute: torch.dtype | None, fused: bool
) -> float:
    """Return what ``rembed plan`` gives for the step that :func:`peak_mib` measures.

    Parameters
    ----------
    shape : DecoderShape
        The model.
    lengths : np.ndarray
        (3 q,) tokens of queries, positives and negatives.
    setting : dict
        Ours.
    compute : torch.dtype, optional
        What layers compute in, if not float32.
    fused : bool
        Whether layers run as one function each.
    """
    training = config.Training(
        precision="fp32" if compute is None else "bf16", compile=bool(setting.get("compile"))
    )
    packs = packs_for(lengths, setting["pack_tokens"])
    tokens, kept = int(lengths.sum()), setting.get("store_tokens")
    load = RankLoad(
        tokens=tokens,
        stored=tokens if kept is None else kept,
        pack=max(int(lengths[pack].sum()) for pack in packs),
        texts=len(lengths),
        queries=len(lengths) // 3,
        documents=len(lengths) * 2 // 3,
    )
    parts = fixed_memory(shape, training, EngineSettings("replicated"), 1)
    parts |= batch_memory(shape, training, load, loss=config.InfoNCE(), fused=fused)
    return round((sum(parts.values()) - parts["weights"]) / MIB, 1)


def _measure(side: MakeSide, work: Workload, setting: Setting, batches: Sequence[Sequence[int]]) -> float:
    trainer = side(work)
    trainer.run(setting, batches[:1])
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
        trainer.run(setting, batches)
        return round((torch.cuda.max_memory_allocated() - base) / MIB, 1)
    _give_back_freed()
    base = _resident_bytes()
    trainer.run(setting, batches)
    return round((_peak_bytes() - base) / MIB, 1)


def _give_back_freed() -> None:
    """Return freed memory to the system, where the C library can: it is not what the trainer holds."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident_bytes() -> int:
    """Memory held now; where the system does not tell, the most that was held."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return _peak_bytes()
    return int(status.read_text().split()[1]) * resource.getpagesize()


def _peak_bytes() -> int:
    """The most memory this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
