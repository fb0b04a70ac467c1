"""A request to stop is granted at the end of a step, after its state is saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Self

from reasoning_embedding.errors import TrainingError


class StoppedError(TrainingError):
    """The run was asked to stop; its state is saved. Exit code 128 + the signal."""

    def __init__(self, step: int, signal_number: int) -> None:
        name = signal.Signals(signal_number).name
        super().__init__(
            f"stopped by {name} after step {step}; its state is saved",
            todo="go on with --resume, or resume=True in Python",
        )
        self.exit_code = 128 + signal_number


class StopRequest:
    """While entered, SIGTERM and SIGINT are noted instead of ending the process.

    Attributes
    ----------
    number : int
        The signal that came, 0 before one has.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # ty: ignore[invalid-argument-type]

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = number
