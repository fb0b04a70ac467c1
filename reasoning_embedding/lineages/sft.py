"""Supervised fine-tuning with trl: worked sums of the miniature world, or rows of files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

from reasoning_embedding.config.lineage import CompletionFiles, SftStage
from reasoning_embedding.data.miniature_world import SUMS

from .fine_tune import Start, TrainerProgress, run_trainer, trainer_arguments
from .gates import encode_fixed
from .placebos import other_rows
from .training_rows import completion_rows

if TYPE_CHECKING:
    from datasets import Dataset


def train_sft(stage: SftStage, start: Start) -> list[dict[str, Any]]:
    """Teach a model what follows its prompts, in place; the loss falls on completions alone.

    Parameters
    ----------
    stage : SftStage
        Data, steps, batch size, learning rate (cosine to zero after a warm-up of a twentieth).
    start : Start
        The parent.

    Returns
    -------
    list of dict
        What the trainer logged, an object a step.

    Raises
    ------
    InputError
        If rows cannot be used, or the world's sums do not have one width in tokens.
    """
    from trl import SFTConfig, SFTTrainer

    rows, ready = _rows(stage, start.tokenizer)
    arguments = SFTConfig(
        **trainer_arguments(stage, start, stage.batch_size, schedule="cosine"),
        dataset_kwargs={"skip_prepare_dataset": True} if ready else None,
        max_length=None if ready else stage.max_tokens,
    )
    return run_trainer(SFTTrainer, arguments, rows, start, TrainerProgress(stage, start.report))


def _rows(stage: SftStage, tokenizer: PreTrainedTokenizerBase) -> tuple[Dataset, bool]:
    """Return the rows, and whether they are tokens already."""
    from datasets import Dataset

    if isinstance(stage.data, CompletionFiles):
        found = completion_rows(stage.data, tokenizer)
        if stage.placebo_of is not None:
            order = other_rows(len(found), stage.seed)
            found = [
                row | {"completion": found[other]["completion"]}
                for row, other in zip(found, order, strict=True)
            ]
        return Dataset.from_list(found), False
    prompts = encode_fixed([problem.prompt for problem in SUMS], tokenizer)
    solutions = encode_fixed([problem.worked for problem in SUMS], tokenizer)
    if stage.placebo_of is not None:
        solutions = solutions[torch.from_numpy(other_rows(len(solutions), stage.seed))]
    ids = torch.cat([prompts, solutions], dim=1)
    # All rows have one width, so nothing is padded.
    labels = torch.cat([torch.full_like(prompts, -100), solutions], dim=1)
    return Dataset.from_dict({"input_ids": ids.tolist(), "labels": labels.tolist()}), True
