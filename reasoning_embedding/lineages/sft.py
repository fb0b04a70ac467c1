"""Supervised fine-tuning on worked solutions with trl."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_embedding.config.lineage import SftStage
from reasoning_embedding.data.world import SUMS

from .gates import encode_fixed
from .progress import Progress, quiet_arguments, quiet_warnings


def train_sft(
    stage: SftStage,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    report: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Teach a model to work sums out, ``07+5=12,01;012 .``, in place.

    Parameters
    ----------
    stage : SftStage
        Steps, batch size, learning rate (cosine to zero after a warm-up of a twentieth).
    model, tokenizer
        The parent; the model is changed.
    report : callable
        Takes a progress line every few seconds.

    Returns
    -------
    list of dict
        What the trainer logged, an object a step.

    Raises
    ------
    InputError
        If sums do not have one width in tokens.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    prompts = encode_fixed([problem.prompt for problem in SUMS], tokenizer)
    solutions = encode_fixed([problem.worked for problem in SUMS], tokenizer)
    ids = torch.cat([prompts, solutions], dim=1)
    # The loss falls on the solution alone; all rows have one width, so nothing is padded.
    labels = torch.cat([torch.full_like(prompts, -100), solutions], dim=1)
    rows = Dataset.from_dict({"input_ids": ids.tolist(), "labels": labels.tolist()})
    progress = Progress(stage.steps, stage.batch_size * ids.shape[1], report)
    with tempfile.TemporaryDirectory() as scratch, quiet_warnings():
        trainer = SFTTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=rows,
            callbacks=[progress],
            args=SFTConfig(
                **quiet_arguments(stage, scratch, schedule="cosine"),
                per_device_train_batch_size=stage.batch_size,
                dataset_kwargs={"skip_prepare_dataset": True},
                max_length=None,
            ),
        )
        progress.attach(trainer)
        trainer.train()
    return progress.log
