"""Reinforcement learning with a verifiable reward: GRPO with trl."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_embedding.config.lineage import RlvrStage
from reasoning_embedding.data.world import SUMS

from .gates import encode_fixed
from .progress import Progress, quiet_arguments, quiet_warnings


def exact_match(completions: list[str], answer: list[str], **_: Any) -> list[float | None]:
    """Return 1 for a completion that is the answer, else 0; white space does not count.

    Parameters
    ----------
    completions : list of str
        What the policy wrote.
    answer : list of str
        The right answers, one a completion.
    """
    return [
        float("".join(text.split()) == "".join(right.split()))
        for text, right in zip(completions, answer, strict=True)
    ]


def train_rlvr(
    stage: RlvrStage,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    parent: Path,
    report: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Reinforce right sums in place.

    Parameters
    ----------
    stage : RlvrStage
        Prompts a step, samples a prompt, temperature, weight of the KL term; the learning rate is constant
        after a warm-up of a twentieth.
    model, tokenizer
        The parent, loaded from `parent`; the model is changed.
    parent : Path
        Its folder, from which trl loads the KL term's frozen reference.
    report : callable
        Takes a progress line every few seconds.

    Returns
    -------
    list of dict
        What the trainer logged, an object a step: reward, kl, entropy and more.

    Raises
    ------
    InputError
        If sums do not have one width in tokens.

    Notes
    -----
    GRPO (Shao et al. 2024) with advantage r - mean(r) over the samples of a prompt, undivided by their
    spread (Liu et al. 2025), on policy. A group whose samples agree has advantage 0 and drops out of
    the policy gradient. Sums have one width, so answers never meet the length limit.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    width = encode_fixed([problem.answer for problem in SUMS], tokenizer).shape[1]
    prompt_width = encode_fixed([problem.prompt for problem in SUMS], tokenizer).shape[1]
    rows = Dataset.from_dict(
        {"prompt": [problem.prompt for problem in SUMS], "answer": [problem.answer for problem in SUMS]}
    )
    completions = stage.batch_size * stage.samples
    progress = Progress(stage.steps, completions * (prompt_width + width), report, value="reward")
    model.config._name_or_path = str(parent)
    with tempfile.TemporaryDirectory() as scratch, quiet_warnings():
        trainer = GRPOTrainer(
            model=model,
            processing_class=tokenizer,
            reward_funcs=exact_match,
            train_dataset=rows,
            callbacks=[progress],
            args=GRPOConfig(
                **quiet_arguments(stage, scratch, schedule="constant_with_warmup"),
                per_device_train_batch_size=completions,
                num_generations=stage.samples,
                steps_per_generation=1,
                num_iterations=1,
                max_completion_length=width,
                temperature=stage.temperature,
                beta=stage.kl,
                scale_rewards="none",
                loss_type="grpo",
            ),
        )
        progress.attach(trainer)
        trainer.train()
    return progress.log
