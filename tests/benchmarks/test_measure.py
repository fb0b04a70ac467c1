"""Contenders take turns; memory is what a call takes, counted in a process of its own."""

from __future__ import annotations

import os
import sys

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


def _measured(mib: int) -> tuple[float, float, str | None]:
    """In a process of its own: MiB that a call adds, MiB by which it raises the peak, and a variable."""

    def ones() -> float:
        return np.ones(mib * 2**17).sum()

    added, before = added_mib(ones), peak_mib()
    np.ones(2 * mib * 2**17).sum()
    return added, peak_mib() - before, os.environ.get("A_BENCHMARK")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only the most a process ever held is told")
@pytest.mark.parametrize("preload", [(), ("numpy",)])
def test_memory_is_what_a_call_adds_in_a_process_with_its_own_environment(preload: tuple[str, ...]) -> None:
    variables = {"A_BENCHMARK": "1"}
    added, raised, variable = in_new_process(_measured, 64, preload=preload, environment=variables)
    assert added == pytest.approx(64, abs=4)
    assert raised == pytest.approx(64, abs=4), "what was freed counts in the peak"
    assert variable == "1"
    assert "A_BENCHMARK" not in os.environ
