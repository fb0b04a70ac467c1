"""How benchmarks measure: seconds of contenders that take turns, and memory in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reasoning_embedding.host import process_memory

MIB = 2**20
#: Rounds in which contenders take turns.
REPEATS = 3
_PEAK_RESET = Path("/proc/self/clear_refs")


def now() -> np.ndarray:
    """(2,) seconds by the clock and of this process's processors: on a busy machine the latter compare better."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def timed(run: Callable[[], Any]) -> tuple[np.ndarray, Any]:
    """Call `run`; return its (2,) seconds as :func:`now` counts them, and what it returned."""
    gc.collect()
    start = now()
    result = run()
    return now() - start, result


def take_turns(
    contenders: Mapping[str, Callable[[], Any]], *, repeats: int, once: Sequence[str] = ()
) -> dict[str, list[Any]]:
    """Call every contender once a round, so that a busy spell of the machine meets all; those of `once` in the first."""
    results: dict[str, list[Any]] = {name: [] for name in contenders}
    for number in range(repeats):
        for name, run in contenders.items():
            if not (number and name in once):
                results[name].append(run())
    return results


def wall_seconds(times: Iterable[np.ndarray]) -> list[float]:
    """Seconds by the clock, as records hold them."""
    return [round(float(each[0]), 4) for each in times]


def cpu_seconds(times: Iterable[np.ndarray]) -> list[float]:
    """Seconds of processors, as records hold them."""
    return [round(float(each[1]), 4) for each in times]


def cpu_ratio(ours: Iterable[np.ndarray], other: Iterable[np.ndarray]) -> float:
    """Median processor time of the other side over ours."""
    return round(statistics.median(t[1] for t in other) / statistics.median(t[1] for t in ours), 4)


def in_new_process(
    function: Callable[..., Any],
    *arguments: Any,
    preload: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Return what a function of a module gives in a process of its own.

    Parameters
    ----------
    function : callable
        Pickled, as are its arguments and what it returns.
    *arguments
        Its arguments.
    preload : sequence of str
        Modules that the process has imported: it is then forked from a server that has computed nothing. Where
        there is a GPU they are imported anew, since a library that asked for one leaves CUDA unusable in a fork.
    environment : mapping of str, optional
        Environment variables of that process.
    """
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.empty_cache()  # what this process has freed is the other's to take
    context: Any = get_context("forkserver" if preload and not gpu else "spawn")
    if preload and not gpu:
        context.set_forkserver_preload(list(preload))
    with ProcessPoolExecutor(1, context, _set_environment, (dict(environment or {}),)) as pool:
        return pool.submit(function, *arguments).result()


def _set_environment(variables: dict[str, str]) -> None:
    os.environ.update(variables)


def added_mib(run: Callable[[], Any]) -> float:
    """Return the most MiB that a call takes beyond what this process holds; on a GPU, what its allocator counts.

    A process counts the most it ever held: call this once in a process that has held little
    (:func:`in_new_process`), after whatever a first call loads. Linux counts anew from here.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return round((torch.cuda.max_memory_allocated() - before) / MIB, 1)
    _give_back_freed()
    if _PEAK_RESET.exists():
        _PEAK_RESET.write_text("5")
    before = process_memory("VmRSS") or _most_held()
    run()
    return round(max((process_memory("VmHWM") or _most_held()) - before, 0) / MIB, 1)


def peak_mib() -> float:
    """Return the most MiB that this process ever held; on a GPU, what its allocator counts."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / MIB, 1)
    # getrusage would count the parent's memory, which a child inherits until it executes its own program.
    return round((process_memory("VmHWM") or _most_held()) / MIB, 1)


def _give_back_freed() -> None:
    """Return freed memory to the system, where the C library can: it is not what the process needs."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _most_held() -> int:
    """Bytes this process held at most, where only that is told."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
