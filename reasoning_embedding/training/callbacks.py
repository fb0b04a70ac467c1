"""What a Python program may do while a run trains: look at steps and checkpoints, and end the run early."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reasoning_embedding.errors import InputError

from .timers import phase

#: What `on_step` returns to end a run.
STOP = "stop"


class StopTraining(Exception):
    """Raised by a callback: the run saves this step and ends there, as if ``"stop"`` had been returned."""


@dataclass(frozen=True)
class StepInfo:
    """A step that was taken.

    Attributes
    ----------
    step, steps : int
        Its number, from 1, and that of the last one.
    loss, accuracy : float
        Over the whole batch, of all ranks.
    learning_rate, grad_norm : float
        Of its update.
    scores : mapping of str to float
        Of the run's evaluation, where it was scored at this step; else empty.
    best : bool
        Whether it has the best score so far.
    record : mapping
        All that ``metrics.jsonl`` gets of it: the terms of the loss, tokens a second, memory, times.
    """

    step: int
    steps: int
    loss: float
    accuracy: float
    learning_rate: float
    grad_norm: float
    scores: Mapping[str, float]
    best: bool
    record: Mapping[str, Any]


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint that lies on disk whole, and can be loaded.

    Attributes
    ----------
    step, steps : int
        Its step, and the last one.
    path : Path
        Its folder.
    best : bool
        Whether it has the best score so far.
    """

    step: int
    steps: int
    path: Path
    best: bool


OnStep = Callable[[StepInfo], str | None]
OnCheckpoint = Callable[[CheckpointInfo], str | None]


@dataclass(frozen=True)
class Callbacks:
    """Functions that are called while a run trains, on the main rank; any rank stops where that one does.

    Parameters
    ----------
    on_step : callable, optional
        Takes a :class:`StepInfo` after each step; returns None, or ``"stop"`` to end the run there.
    on_checkpoint : callable, optional
        Takes a :class:`CheckpointInfo` after each saved one, likewise.
    terms : mapping of str to callable
        Terms of the loss that Python gave, by the address that the settings give them (``python:NAME``).
    """

    on_step: OnStep | None = None
    on_checkpoint: OnCheckpoint | None = None
    terms: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def step(self, record: Mapping[str, Any], steps: int, *, best: bool) -> bool:
        """Show a step; return whether the run shall end.

        Raises
        ------
        InputError
            If the function returns something else than None and ``"stop"``.
        """
        if self.on_step is None:
            return False
        names = ("step", "loss", "accuracy", "learning_rate", "grad_norm")
        scores = record.get("evaluation", {})
        info = StepInfo(steps=steps, scores=scores, best=best, record=record, **{n: record[n] for n in names})
        return _asks_to_stop("on_step", self.on_step, info)

    def checkpoint(self, step: int, steps: int, path: Path, *, best: bool) -> bool:
        """Show a checkpoint; return whether the run shall end.

        Raises
        ------
        InputError
            As for :meth:`step`.
        """
        if self.on_checkpoint is None:
            return False
        return _asks_to_stop("on_checkpoint", self.on_checkpoint, CheckpointInfo(step, steps, path, best))


def _asks_to_stop(name: str, function: Callable[[Any], str | None], info: Any) -> bool:
    try:
        with phase("callbacks"):
            answer = function(info)
    except StopTraining:
        return True
    if answer is not None and answer != STOP:
        raise InputError(
            f"it returned {answer!r:.60}",
            where=name,
            todo=f"return None to go on, or {STOP!r} to end the run",
        )
    return answer is not None
