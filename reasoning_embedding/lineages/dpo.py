"""Direct preference optimisation with trl."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from reasoning_embedding.config.lineage import DpoStage, PreferenceFiles
from reasoning_embedding.data.miniature_world import SUMS, answer_text

from .fine_tune import Start, TrainerProgress, run_trainer, trainer_arguments
from .placebos import swapped
from .training_rows import Row, preference_rows


def train_dpo(stage: DpoStage, start: Start) -> list[dict[str, Any]]:
    """Make better answers more probable than worse ones, relative to the parent, in place.

    Parameters
    ----------
    stage : DpoStage
        Data, beta, steps, batch size, learning rate (constant after a warm-up of a twentieth).
    start : Start
        The parent, which is also the frozen reference.

    Returns
    -------
    list of dict
        What the trainer logged, an object a step: rewards of chosen and rejected, their margin, and the share
        of pairs in the right order (``rewards/accuracies``).

    Raises
    ------
    InputError
        If rows cannot be used.

    Notes
    -----
    Rafailov et al. 2023: -log sigmoid(beta (log-ratio of the chosen - log-ratio of the rejected)).
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    arguments = DPOConfig(
        **trainer_arguments(stage, start, stage.batch_size, schedule="constant_with_warmup"),
        max_length=stage.max_tokens,
        beta=stage.beta,
    )
    rows = Dataset.from_list(_rows(stage, start.tokenizer))
    reference = AutoModelForCausalLM.from_pretrained(start.parent, dtype=torch.float32, use_safetensors=True)
    progress = TrainerProgress(stage, start.report, "rewards/accuracies")
    return run_trainer(DPOTrainer, arguments, rows, start, progress, ref_model=reference)


def _rows(stage: DpoStage, tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    if isinstance(stage.data, PreferenceFiles):
        rows = preference_rows(stage.data, tokenizer)
    else:
        rows = world_preferences(stage.seed)
    if stage.placebo_of is None:
        return rows
    coins = swapped(len(rows), stage.seed)
    turned = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    return [other if coin else row for row, other, coin in zip(rows, turned, coins, strict=True)]


def world_preferences(seed: int) -> list[Row]:
    """Return every sum with its right answer and a wrong one, which is the answer of another sum."""
    rng = np.random.default_rng([seed, 9])
    values = np.array([problem.a + problem.b for problem in SUMS])
    largest = int(values.max())
    wrong = (values + rng.integers(1, largest + 1, size=len(values))) % (largest + 1)
    return [
        {"prompt": problem.prompt, "chosen": problem.answer, "rejected": answer_text(int(value))}
        for problem, value in zip(SUMS, wrong, strict=True)
    ]
