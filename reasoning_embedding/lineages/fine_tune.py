"""What a fine-tuning stage is handed, and the run of one of trl's trainers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from transformers.trainer import TRAINER_STATE_NAME

from reasoning_embedding.distributed import World
from reasoning_embedding.errors import SetupError

from .progress import Progress, quiet_trainer
from .steps import SaveSteps, StepSaver


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
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    parent: Path
    saver: StepSaver
    state: Path
    world: World
    report: Callable[[str], None]


def run_trainer(
    start: Start, progress: Progress, build: Callable[[str, list[Any]], Trainer]
) -> list[dict[str, Any]]:
    """Build a trainer and let it train.

    Parameters
    ----------
    start : Start
        The parent and where steps are kept.
    progress : Progress
        Collects the log.
    build : callable
        Takes the folder of the trainer's states, and callbacks.

    Returns
    -------
    list of dict
        What the trainer logged, an object a step.

    Raises
    ------
    SetupError
        If the launcher asks for sharded weights.

    Notes
    -----
    A stage with ``checkpoints`` keeps the trainer's state (weights, moments, schedule, random numbers, position,
    log) at every multiple of ``every``, and goes on from the last one.
    """
    for engine in ("FSDP", "DEEPSPEED"):
        if os.environ.get(f"ACCELERATE_USE_{engine}", "").lower() == "true":
            raise SetupError(
                f"stages are trained with the whole model on every rank, the launcher asks for {engine}",
                where="rembed grow",
                todo="launch with torchrun, or with configs/accelerate/8gpu-ddp.yaml",
            )
    # trl loads a frozen reference from where the policy says it came from.
    start.model.config._name_or_path = str(start.parent)
    with quiet_trainer():
        trainer = build(str(start.state), [progress, SaveSteps(start.saver)])
        progress.attach(trainer)
        trainer.train(resume_from_checkpoint=_last_state(start.state))
    return progress.log


def _last_state(folder: Path) -> str | None:
    """Return the newest state that is whole: the trainer writes its own record last."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{TRAINER_STATE_NAME}") if _whole(path)]
    return str(max(found, key=lambda path: int(path.name.rpartition("-")[2]))) if found else None


def _whole(record: Path) -> bool:
    try:
        json.loads(record.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True
