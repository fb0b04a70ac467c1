"""Contenders take turns; memory is what a call takes, counted in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.measure import added_mib, in_new_process, peak_mib, take_turns, timed


def test_contenders_take_turns() -> None:
    calls: list[str] = []
    contenders = {name: lambda name=name: calls.append(name) for name in "ab"}
    results = take_turns(contenders, repeats=3)
    assert "".join(calls) == "ababab"
    assert {name: len(values) for name, values in results.items()} == {"a": 3, "b": 3}
    calls.clear()
    take_turns(contenders, repeats=3, once="b")
    assert "".join(calls) == "abaa"


def test_seconds_are_those_of_the_clock_and_of_processors() -> None:
    seconds, found = timed(lambda: float(np.linalg.norm(np.ones((600, 600)) @ np.ones((600, 600)))))
    assert found == pytest.approx(600 * 600)
    assert (seconds > 0).all()


def _ones(mib: int) -> Callable[[], object]:
    return lambda: np.ones(mib * 2**17).sum()


def _added(mib: int) -> float:
    return added_mib(_ones(mib))


def _peak(mib: int) -> float:
    _ones(mib)()
    return peak_mib()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only the most a process ever held is told")
@pytest.mark.parametrize("preload", [(), ("numpy",)])
def test_memory_is_what_a_call_adds(preload: tuple[str, ...]) -> None:
    assert in_new_process(_added, 64, preload=preload) == pytest.approx(64, abs=4)


def test_the_peak_counts_what_was_freed() -> None:
    assert in_new_process(_peak, 128) - in_new_process(_peak, 0) == pytest.approx(128, abs=16)


def test_a_process_gets_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_BENCHMARK", raising=False)
    assert in_new_process(os.getenv, "A_BENCHMARK", environment={"A_BENCHMARK": "1"}) == "1"
    assert "A_BENCHMARK" not in os.environ
