"""Where the time of a step goes, phase by phase."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from contextvars import ContextVar
from typing import Any

import torch

#: What time outside of every phase is called.
OTHER = "other"


class Clock:
    """Marks points in the time of the host, and tells later how far apart they are."""

    def mark(self) -> Any:
        """Mark now."""
        return time.perf_counter()

    def seconds(self, first: Any, second: Any) -> float:
        """Seconds between two marks."""
        return second - first


class CudaClock(Clock):
    """Time of a GPU's stream, by events: marking costs a microsecond, and nothing waits until times are read."""

    def mark(self) -> torch.cuda.Event:
        """Mark the place in the current stream."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, first: torch.cuda.Event, second: torch.cuda.Event) -> float:
        """Seconds between two marks, waiting for the second."""
        second.synchronize()
        return first.elapsed_time(second) / 1000


class Timers:
    """Times the phases of a step; what an inner phase takes is not counted in the outer one.

    Only a mark is made where a phase begins or ends, so all times together are exactly the time since the
    last :meth:`take`.

    Parameters
    ----------
    clock : Clock
        Absent: that of the host, or of the GPU for a `device` of type ``cuda``.
    device : torch.device, optional
        Where the work runs.
    """

    def __init__(self, device: torch.device | None = None, *, clock: Clock | None = None) -> None:
        on_gpu = device is not None and device.type == "cuda"
        self._clock = clock or (CudaClock() if on_gpu else Clock())
        self._running = [OTHER]
        #: What was running until each mark.
        self._marks = [(OTHER, self._clock.mark())]

    @contextlib.contextmanager
    def phase(self, name: str) -> Generator[None]:
        """Count the time inside as that of `name`."""
        self._marks.append((self._running[-1], self._clock.mark()))
        self._running.append(name)
        try:
            yield
        finally:
            self._running.pop()
            self._marks.append((name, self._clock.mark()))

    @contextlib.contextmanager
    def active(self) -> Generator[None]:
        """Let :func:`phase` count here inside."""
        token = _active.set(self)
        try:
            yield
        finally:
            _active.reset(token)

    def take(self) -> dict[str, float]:
        """Return the seconds of each phase since the last call, and begin anew."""
        self._marks.append((self._running[-1], self._clock.mark()))
        found: dict[str, float] = {}
        for (_, before), (name, now) in zip(self._marks, self._marks[1:], strict=False):
            found[name] = found.get(name, 0.0) + self._clock.seconds(before, now)
        del self._marks[:-1]
        return found


_active: ContextVar[Timers | None] = ContextVar("timers", default=None)


def phase(name: str) -> contextlib.AbstractContextManager[None]:
    """Count the time inside as that of `name` where timers are active; cost next to nothing elsewhere."""
    timers = _active.get()
    return timers.phase(name) if timers is not None else contextlib.nullcontext()
