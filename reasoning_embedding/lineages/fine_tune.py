"""What a fine-tuning stage is handed, and the run of one of trl's trainers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

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
    world : World
        The ranks that train together.
    report : callable
        Takes a progress line every few seconds.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    parent: Path
    saver: StepSaver
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
        Takes a scratch folder and callbacks.

    Returns
    -------
    list of dict
        What the trainer logged, an object a step.

    Raises
    ------
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
    # trl loads a frozen reference from where the policy says it came from.
    start.model.config._name_or_path = str(start.parent)
    with tempfile.TemporaryDirectory() as scratch, quiet_trainer():
        trainer = build(scratch, [progress, SaveSteps(start.saver)])
        progress.attach(trainer)
        trainer.train()
    return progress.log
