"""What both trl stages share: arguments without side effects, progress lines and a log."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Generator
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils import logging

from reasoning_embedding.config.lineage import StageBase
from reasoning_embedding.errors import TrainingError

from .pretrain import REPORT_EVERY


def quiet_arguments(stage: StageBase, scratch: str, *, schedule: str) -> dict[str, Any]:
    """Return trainer arguments for a small stage in one process: no trackers, no saving, fp32 on CPU."""
    return {
        "output_dir": scratch,
        "max_steps": stage.steps,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": schedule,
        "warmup_steps": max(1, stage.steps // 20),
        "weight_decay": 0.0,
        "optim": "adamw_torch_fused",
        "seed": stage.seed,
        "data_seed": stage.seed,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
    }


@contextlib.contextmanager
def quiet_warnings() -> Generator[None]:
    """Drop transformers' notes on argument names that trl still uses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
        yield


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
    steps : int
        Steps of the stage.
    tokens : int
        Tokens a step.
    report : callable
        Takes the lines.
    value : str
        The logged number a line shows.

    Attributes
    ----------
    log : list of dict
        One object a step.
    """

    def __init__(self, steps: int, tokens: int, report: Callable[[str], None], value: str = "loss") -> None:
        self.log: list[dict[str, Any]] = []
        self._steps, self._tokens, self._report, self._value = steps, tokens, report, value
        self._said, self._said_step = time.monotonic(), 0

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
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"the loss is {logs['loss']}", where=f"step {state.global_step}", todo="lower learning_rate"
            )
        self.log.append({"step": state.global_step, **logs, "tokens": self._tokens})
        clock = time.monotonic()
        if clock - self._said >= REPORT_EVERY or state.global_step == self._steps:
            speed = (state.global_step - self._said_step) * self._tokens / max(clock - self._said, 1e-9)
            self._report(
                f"step {state.global_step}/{self._steps} {self._value} {logs[self._value]:.3f} "
                f"{speed / 1000:.1f}k tokens/s"
            )
            self._said, self._said_step = clock, state.global_step
