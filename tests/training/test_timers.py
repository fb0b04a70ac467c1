"""Phases by a clock that only moves when told."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reasoning_embedding.training.timers import Clock, Timers, phase

MILLISECONDS = [0.0]


class _Clock(Clock):
    now = 0.0

    def mark(self) -> float:
        return self.now

    def seconds(self, first: float, second: float) -> float:
        return second - first


def test_inner_phases_are_taken_from_outer_ones() -> None:
    clock = _Clock()
    timers = Timers(clock=clock)
    with timers.active():
        clock.now += 1
        with phase("backward"):
            clock.now += 2
            with phase("communication"):
                clock.now += 4
            clock.now += 8
        with phase("backward"):
            clock.now += 16
        clock.now += 32
    assert timers.take() == {"other": 33, "backward": 26, "communication": 4}
    assert timers.take() == {"other": 0}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 4)), max_size=30))
def test_phases_add_up_to_the_time_that_passed(steps: list[tuple[str, int, int]]) -> None:
    clock = _Clock()
    timers = Timers(clock=clock)

    def nest(level: int, name: str, seconds: int) -> None:
        with timers.phase(name):
            clock.now += seconds
            if level:
                nest(level - 1, name + "i", seconds)

    for name, seconds, level in steps:
        nest(level, name, seconds)
        clock.now += 1
    assert sum(timers.take().values()) == clock.now


def test_an_error_ends_its_phase() -> None:
    clock = _Clock()
    timers = Timers(clock=clock)

    def fail() -> None:
        with timers.phase("data"):
            clock.now += 1
            raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        fail()
    clock.now += 2
    assert timers.take() == {"data": 1, "other": 2}


def test_without_timers_a_phase_is_nothing() -> None:
    clock = _Clock()
    timers = Timers(clock=clock)
    with timers.active():
        pass
    with phase("data"):
        clock.now += 1
    assert timers.take() == {"other": 1}


def test_the_hosts_clock_runs() -> None:
    timers = Timers()
    with timers.phase("data"):
        pass
    assert all(seconds >= 0 for seconds in timers.take().values())


class _Event:
    """As ``torch.cuda.Event``: milliseconds between recorded events, of which the later one has happened."""

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing
        self.at: float | None = None
        self.happened = False

    def record(self) -> None:
        self.at = MILLISECONDS[0]

    def synchronize(self) -> None:
        assert self.at is not None
        self.happened = True

    def elapsed_time(self, later: _Event) -> float:
        assert self.at is not None
        assert later.at is not None
        assert later.happened
        return later.at - self.at


def test_a_gpu_is_timed_in_seconds_of_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", _Event)
    timers = Timers(torch.device("cuda"))
    with timers.active():
        MILLISECONDS[0] += 250
        with phase("forward"):
            MILLISECONDS[0] += 1500
    assert timers.take() == {"other": 0.25, "forward": 1.5}
