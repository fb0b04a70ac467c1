"""Reinforcement learning with a verifiable reward: GRPO with trl."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from reasoning_embedding.config.lineage import ProblemFiles, RlvrStage
from reasoning_embedding.data.miniature_world import SUMS
from reasoning_embedding.errors import TrainingError
from reasoning_embedding.progress import Report

from .fine_tune import Start, TrainerProgress, run_trainer, trainer_arguments
from .gates import encode_fixed
from .placebos import RandomReward, live_shares
from .rewards import Judge
from .training_rows import Row, problem_rows


def train_rlvr(stage: RlvrStage, start: Start) -> list[dict[str, Any]]:
    """Reinforce right answers in place.

    Parameters
    ----------
    stage : RlvrStage
        Data, reward, prompts a step, samples a prompt, temperature, weight of the KL term; the learning rate is
        constant after a warm-up of a twentieth.
    start : Start
        The parent, which is also the frozen reference of the KL term.

    Returns
    -------
    list of dict
        What the trainer logged, an object a step: reward, kl, entropy, live_groups, completion_tokens,
        unparsed and more.

    Raises
    ------
    InputError
        If rows or the reward cannot be used, or the world's sums do not have one width in tokens.
    TrainingError
        When no group of samples has taught anything for ``dead_steps`` steps.

    Notes
    -----
    GRPO (Shao et al. 2024) with advantage r - mean(r) over the samples of a prompt, undivided by their
    spread (Liu et al. 2025), on policy. A group whose samples agree has advantage 0 and drops out of
    the policy gradient. A placebo's reward is random (:class:`.placebos.RandomReward`).
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    judge = Judge(stage.reward)
    problems, longest = _problems(stage, start.tokenizer, judge)
    shared = trainer_arguments(
        stage, start, stage.batch_size * stage.samples, schedule="constant_with_warmup"
    )
    arguments = GRPOConfig(
        **shared,
        steps_per_generation=shared["gradient_accumulation_steps"],
        num_generations=stage.samples,
        num_iterations=1,
        max_completion_length=longest,
        temperature=stage.temperature,
        beta=stage.kl,
        scale_rewards="none",
        loss_type="grpo",
    )
    rows, progress = Dataset.from_list(problems), RewardProgress(stage, start.report)
    reward: Judge | RandomReward = judge
    if start.twin is not None:
        reward = RandomReward(live_shares(start.twin), stage.samples, stage.seed, start.world)
    return run_trainer(GRPOTrainer, arguments, rows, start, progress, reward_funcs=reward)


def _problems(stage: RlvrStage, tokenizer: PreTrainedTokenizerBase, judge: Judge) -> tuple[list[Row], int]:
    """Return the problems and the most tokens of a completion."""
    if isinstance(stage.data, ProblemFiles):
        assert stage.max_completion_tokens is not None  # the configuration sees to it
        return problem_rows(stage.data, tokenizer, judge), stage.max_completion_tokens
    # Sums have one width, so nothing is padded and right answers never meet the limit.
    encode_fixed([problem.prompt for problem in SUMS], tokenizer)
    width = encode_fixed([problem.answer for problem in SUMS], tokenizer).shape[1]
    rows = [{"prompt": problem.prompt, "answer": problem.answer} for problem in SUMS]
    return rows, stage.max_completion_tokens or width


class RewardProgress(TrainerProgress):
    """Progress of reinforcement learning: it knows which groups still teach, and stops when none does."""

    def __init__(self, stage: RlvrStage, report: Report) -> None:
        super().__init__(stage, report, "reward")
        self._dead, self._dead_steps = 0, stage.dead_steps

    def examine(self, entry: dict[str, Any]) -> None:
        """Add the share of live groups, whose samples differ in reward; stop after too many dead steps.

        Raises
        ------
        TrainingError
            When no group was live for ``dead_steps`` steps in a row.
        """
        entry["live_groups"] = 1.0 - entry["frac_reward_zero_std"]
        entry["completion_tokens"] = entry["completions/mean_length"]
        self._dead = 0 if entry["live_groups"] > 0 else self._dead + 1
        if self._dead >= self._dead_steps:
            raise TrainingError(
                f"all rewards of a prompt's samples were equal for {self._dead} steps in a row (mean reward "
                f"{entry['reward']:.3f}, {entry.get('unparsed', 0.0):.0%} of the completions do not parse), so "
                "nothing is learnt any more",
                where=f"step {entry['step']} of {self._stage.name}",
                todo="choose problems the parent solves sometimes, more samples, a higher temperature, or more "
                "max_completion_tokens; dead_steps says how long to wait",
            )

    def remark(self, entry: dict[str, Any]) -> str:
        """Name the share of live groups and, where there are any, of completions that do not parse."""
        unparsed = entry.get("unparsed", 0.0)
        return f" live {entry['live_groups']:.2f}" + (f" unparsed {unparsed:.2f}" if unparsed else "")
