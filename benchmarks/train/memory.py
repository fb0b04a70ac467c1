"""Memory of one training step: measured in a process of its own, and as ``rembed plan`` predicts it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from benchmarks.measure import MIB, added_mib, in_new_process
from benchmarks.train.trainers import MakeTrainer, Setting, Workload
from reasoning_embedding import config
from reasoning_embedding.backbones import packs_for
from reasoning_embedding.config import EngineSettings
from reasoning_embedding.planning.memory import RankLoad, batch_memory, fixed_memory
from reasoning_embedding.planning.shapes import DecoderShape


def step_mib(
    trainer: MakeTrainer, work: Workload, setting: Setting, batches: Sequence[Sequence[int]]
) -> float:
    """Return by how many MiB the step exceeds the process that holds model and libraries.

    Parameters
    ----------
    trainer : callable
        :class:`~.trainers.Ours` or :class:`~.trainers.SentenceTransformers`.
    work : Workload
        What it trains.
    setting : dict
        The trainer's setting.
    batches : sequence of sequence of int
        A small batch first, which loads what the trainer imports late and makes the optimizer's state; then
        the one whose step is measured.

    Notes
    -----
    Gradients, optimizer state, activations and the loss count; weights, interpreter and libraries do not.
    """
    preload = ["sentence_transformers.sentence_transformer.trainer", __name__]
    return in_new_process(_added, trainer, work, setting, batches, preload=preload)


def _added(trainer: MakeTrainer, work: Workload, setting: Setting, batches: Sequence[Sequence[int]]) -> float:
    ready = trainer(work)
    ready.run(setting, batches[:1])
    return added_mib(partial(ready.run, setting, batches))


def predicted_mib(
    shape: DecoderShape, lengths: np.ndarray, setting: Setting, *, compute: torch.dtype | None, fused: bool
) -> float:
    """Return what ``rembed plan`` gives for the step that :func:`benchmarks.measure.peak_mib` measures.

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
    parts = fixed_memory(shape, training, EngineSettings(), 1)
    parts |= batch_memory(shape, training, load, loss=config.InfoNCE(), fused=fused)
    return round((sum(parts.values()) - parts["weights"]) / MIB, 1)
