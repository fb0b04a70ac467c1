"""What all trl stages share: arguments without side effects, progress lines and a log."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils import logging

from reasoning_embedding.backbones import compute_dtype
from reasoning_embedding.config.lineage import FineTuneStage, RlvrStage
from reasoning_embedding.distributed import World
from reasoning_embedding.errors import InputError, TrainingError

from .pretrain import REPORT_EVERY

Arguments = TypeVar("Arguments", bound=TrainingArguments)


def quiet_arguments(stage: FineTuneStage, world: World, state: str, *, schedule: str) -> dict[str, Any]:
    """Return trainer arguments that all stages share: no trackers, states only when asked, this rank's device."""
    return {
        "output_dir": state,
        "max_steps": stage.steps,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": schedule,
        "warmup_steps": max(1, stage.steps // 20),
        "weight_decay": 0.0,
        "optim": "adamw_torch_fused",
        "seed": stage.seed,
        "data_seed": stage.seed,
        "use_cpu": world.device.type == "cpu",
        "bf16": compute_dtype(stage.precision, world.device) is not None,
        "gradient_checkpointing": stage.activation_checkpointing,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "save_strategy": "no",
        "save_total_limit": 1,
        "logging_steps": 1,
        "disable_tqdm": True,
    }


def one_device(arguments: Arguments) -> Arguments:
    """Keep transformers from spreading a single process over all GPUs it sees."""
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments


def shares(stage: FineTuneStage, sequences: int, world: World) -> tuple[int, int]:
    """Return the sequences of a rank in one forward, and the forwards of a step.

    Parameters
    ----------
    stage : FineTuneStage
        Its ``micro_batch``.
    sequences : int
        Of a step over all ranks.
    world : World
        The ranks.

    Raises
    ------
    InputError
        If they do not divide evenly.
    """
    micro = stage.micro_batch or max(1, sequences // world.size)
    if sequences % (micro * world.size):
        raise InputError(
            f"{sequences} sequences a step do not divide into forwards of {micro} on {world.size} ranks",
            where=f"stage {stage.name}",
            todo="change batch_size (or samples) or micro_batch",
        )
    return micro, sequences // (micro * world.size)


@contextlib.contextmanager
def quiet_trainer() -> Generator[None]:
    """Drop the bars of data sets, and transformers' notes on argument names that trl still uses."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hidden = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
            yield
    finally:
        if not hidden:
            enable_progress_bars()


@contextlib.contextmanager
def no_bars() -> Generator[None]:
    """Keep transformers' bars for loading and saving off the terminal."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class Progress(TrainerCallback):
    """Collects what a trainer logs and says every few seconds where it is.

    Parameters
    ----------
    stage : FineTuneStage
        Its steps and name.
    report : callable
        Takes the lines.
    value : str
        The logged number a line shows.

    Attributes
    ----------
    log : list of dict
        One object a step.
    """

    def __init__(self, stage: FineTuneStage, report: Callable[[str], None], value: str = "loss") -> None:
        self.log: list[dict[str, Any]] = []
        self._stage, self._report, self._value = stage, report, value
        self._before = 0
        self._said, self._said_tokens, self._tokens = time.monotonic(), 0, 0

    def attach(self, trainer: Trainer) -> None:
        """Silence the trainer's own printing."""
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Keep a step's numbers and report now and then.

        Raises
        ------
        TrainingError
            When the loss is no longer finite.
        """
        if logs is None or "loss" not in logs:
            return
        entry = self._take(state.global_step, logs)
        clock = time.monotonic()
        if clock - self._said >= REPORT_EVERY or state.global_step == self._stage.steps:
            speed = (self._tokens - self._said_tokens) / max(clock - self._said, 1e-9)
            self._report(
                f"step {state.global_step}/{self._stage.steps} {self._value.rpartition('/')[2]} "
                f"{entry[self._value]:.3f}{self.remark(entry)} {speed / 1000:.1f}k tokens/s"
            )
            self._said, self._said_tokens = clock, self._tokens

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take the log of the steps that were done before an interruption."""
        for logs in state.log_history:
            self._take(int(logs["step"]), logs)
        if state.global_step:
            self._report(f"resumed at step {state.global_step}/{self._stage.steps}")
        # Trainers that do not keep their count of tokens in their state count anew.
        self._before = self._tokens - state.num_input_tokens_seen
        self._said_tokens = self._tokens

    def _take(self, step: int, logs: dict[str, float]) -> dict[str, Any]:
        """Check a step's numbers and add them to the log."""
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"the loss is {logs['loss']}",
                where=f"step {step} of {self._stage.name}",
                todo="lower learning_rate",
            )
        total = self._before + int(logs.get("num_tokens", 0))
        entry = {"step": step, **logs, "num_tokens": total, "tokens": total - self._tokens}
        self._tokens = total
        self.examine(entry)
        self.log.append(entry)
        return entry

    def examine(self, entry: dict[str, Any]) -> None:
        """Look at a step's numbers, complete them, or stop."""

    def remark(self, entry: dict[str, Any]) -> str:
        """Return what a progress line adds about a step."""
        return ""


class RewardProgress(Progress):
    """Progress of reinforcement learning: it knows which groups still teach, and stops when none does."""

    def __init__(self, stage: RlvrStage, report: Callable[[str], None]) -> None:
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
