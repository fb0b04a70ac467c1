"""What all stages of trl share: where they start, their trainer's arguments, its run, its log and progress."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from reasoning_embedding.backbones import compute_dtype
from reasoning_embedding.config.lineage import FineTuneStage
from reasoning_embedding.distributed import World
from reasoning_embedding.errors import InputError, SetupError, TrainingError
from reasoning_embedding.files import hash_file, read_json, write_json
from reasoning_embedding.progress import Report, Throttle

from .pretrain import SECONDS_A_LINE
from .step_checkpoints import SaveSteps, StepSaver

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Start:
    """Where a fine-tuning stage starts.

    Attributes
    ----------
    model : PreTrainedModel
        The parent, fp32; it is changed in place.
    tokenizer : PreTrainedTokenizerBase
        The parent's.
    parent : Path
        The parent's folder, from which frozen references are loaded.
    saver : StepSaver
        Keeps the steps that are asked for.
    state : Path
        Folder of what an interrupted stage goes on from; removed by the caller once the result is safe.
    world : World
        The ranks that train together.
    report : callable
        Takes a progress line every few seconds.
    twin : Path or None
        Folder of the stage whose placebo is trained.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    parent: Path
    saver: StepSaver
    state: Path
    world: World
    report: Report
    twin: Path | None = None


def trainer_arguments(stage: FineTuneStage, start: Start, sequences: int, *, schedule: str) -> dict[str, Any]:
    """Return the arguments that all stages share: no trackers, states only when asked, this rank's device.

    Parameters
    ----------
    stage : FineTuneStage
        Steps, learning rate, seed, precision, ``micro_batch``.
    start : Start
        Ranks, and the folder of states.
    sequences : int
        Of a step over all ranks.
    schedule : str
        Of the learning rate, after a warm-up of a twentieth of the steps.

    Raises
    ------
    InputError
        If the sequences do not divide evenly.
    SetupError
        If the launcher asks for sharded weights.
    """
    for engine in ("FSDP", "DEEPSPEED"):
        if os.environ.get(f"ACCELERATE_USE_{engine}", "").lower() == "true":
            raise SetupError(
                f"stages are trained with the whole model on every rank, the launcher asks for {engine}",
                where="rembed grow",
                todo="launch with torchrun, or with configs/accelerate/8gpu-ddp.yaml",
            )
    world = start.world
    micro = stage.micro_batch or max(1, sequences // world.size)
    if sequences % (micro * world.size):
        raise InputError(
            f"{sequences} sequences a step do not divide into forwards of {micro} on {world.size} ranks",
            where=f"stage {stage.name}",
            todo="change batch_size (or samples) or micro_batch",
        )
    return {
        "output_dir": str(start.state),
        "max_steps": stage.steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": sequences // (micro * world.size),
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


def run_trainer(
    trainer: Callable[..., Trainer],
    arguments: TrainingArguments,
    rows: Dataset,
    start: Start,
    progress: TrainerProgress,
    **own: Any,
) -> list[dict[str, Any]]:
    """Train the parent's model, in place.

    Parameters
    ----------
    trainer : callable
        A trainer's class.
    arguments : TrainingArguments
        Of its own kind, made of :func:`trainer_arguments`.
    rows : Dataset
        What it learns from.
    start : Start
        The parent and where steps are kept.
    progress : TrainerProgress
        Collects the log.
    **own
        What this trainer takes beside these.

    Returns
    -------
    list of dict
        What the trainer logged, an object a step.

    Notes
    -----
    A stage with ``checkpoints`` keeps the trainer's state (weights, moments, schedule, random numbers, position,
    log) at every multiple of ``every``, and goes on from the last one.
    """
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # or transformers spreads a single process over all GPUs it sees
    # trl loads a frozen reference from where the policy says it came from.
    start.model.config._name_or_path = str(start.parent)
    running = trainer(
        model=start.model,
        processing_class=start.tokenizer,
        train_dataset=rows,
        callbacks=[progress, SaveSteps(start.saver), _SumStates()],
        args=arguments,
        **own,
    )
    running.remove_callback(PrinterCallback)
    running.remove_callback(ProgressCallback)
    running.train(resume_from_checkpoint=_last_state(start.state, start.report))
    return progress.log


#: Name -> SHA-256 of the other files of a trainer's state.
_SUMS = "sums.json"


def _last_state(folder: Path, report: Report) -> str | None:
    """Return the newest whole state; one that is damaged is said."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{TRAINER_STATE_NAME}")]
    for state in sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        damage = _damage(state)
        if damage is None:
            return str(state)
        report(f"{state} is left out: {damage}")
    return None


def _damage(state: Path) -> str | None:
    """Say what is wrong with a trainer's state; one of an older version, or whose last step was killed, has no sums."""
    try:
        read_json(state / TRAINER_STATE_NAME)  # the trainer writes its own record last
        sums = read_json(state / _SUMS, default={"files": {}})["files"]
        changed = [name for name, wanted in sums.items() if hash_file(state / name) != wanted]
    except (InputError, OSError, KeyError, AttributeError, TypeError) as error:
        return error.what if isinstance(error, InputError) else f"it is not whole ({error})"
    return f"{', '.join(changed)} was changed after it was written" if changed else None


class _SumStates(TrainerCallback):
    """Writes the sums of each state that the trainer has written; other ranks' random numbers may come later."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        files = [
            path for path in folder.iterdir() if path.is_file() and not path.name.startswith("rng_state_")
        ]
        write_json(folder / _SUMS, {"files": {path.name: hash_file(path) for path in files}}, summed=True)


class TrainerProgress(TrainerCallback):
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

    def __init__(self, stage: FineTuneStage, report: Report, value: str = "loss") -> None:
        self.log: list[dict[str, Any]] = []
        self._stage, self._report, self._value = stage, report, value
        self._before = 0
        self._line, self._tokens_at_line, self._tokens = Throttle(SECONDS_A_LINE), 0, 0

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
        elapsed = self._line.elapsed
        if self._line.is_due(last=state.global_step == self._stage.steps):
            speed = (self._tokens - self._tokens_at_line) / max(elapsed, 1e-9)
            self._report(
                f"step {state.global_step}/{self._stage.steps} {self._value.rpartition('/')[2]} "
                f"{entry[self._value]:.3f}{self.remark(entry)} {speed / 1000:.1f}k tokens/s"
            )
            self._tokens_at_line = self._tokens

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
        self._tokens_at_line = self._tokens

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
