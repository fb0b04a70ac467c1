"""States, timing and memory that the HRSA benchmarks share."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

REPEATS = 3
#: Rows of a block of the streaming pass.
BLOCK = 1024
#: Takes a size, prepares what memory is not counted, and returns what it is counted of.
Work = Callable[["Size"], Callable[[], Any]]


@dataclass(frozen=True)
class Size:
    """Layers of each model, rows, dimensions; labelled texts of the probe; pairs the other side is timed on."""

    layers: int
    rows: int
    width: int
    texts: int
    timed_pairs: int


def states(size: Size, model: int) -> list[np.ndarray]:
    """States of every layer of a model, float32 (rows, width)."""
    return [np.concatenate(blocks) for blocks in zip(*blocks(size, model), strict=True)]


def blocks(size: Size, model: int) -> Iterator[list[np.ndarray]]:
    """Rows of every layer, a block at a time; half of each is the same in both models."""
    for number, start in enumerate(range(0, size.rows, BLOCK)):
        shape = min(BLOCK, size.rows - start), size.width
        shared = np.random.default_rng([number, 9]).standard_normal(shape, dtype=np.float32)
        own = np.random.default_rng([number, model])
        yield [shared + own.standard_normal(shape, dtype=np.float32) for _ in range(size.layers)]


def now() -> np.ndarray:
    """Seconds by the clock and of this process's processors: on a busy machine the latter compare better."""
    return np.array([time.perf_counter(), time.process_time()])


def some_pairs(size: Size) -> list[tuple[int, int]]:
    """Pairs of layers that the other side is timed on."""
    steps = np.linspace(0, size.layers - 1, size.timed_pairs).astype(int)
    return [(int(i), int(j)) for i, j in zip(steps, steps[::-1], strict=True)]


def peak(work: Work, size: Size) -> float | None:
    """MiB that some work adds to a fresh process that has loaded its libraries; None where that cannot be seen."""
    if not Path("/proc/self/status").exists():
        return None
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_alone, work, size).result()


def _alone(work: Work, size: Size) -> float:
    work(Size(2, 1200, 16, 0, 1))()  # libraries allocate what they keep
    counted = work(size)
    before = _high_water()
    counted()
    return round(max(_high_water() - before, 0.1), 1)


def _high_water() -> float:
    [line] = [row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def result(
    name: str,
    ours: list[np.ndarray],
    other: list[np.ndarray],
    size: Size,
    *,
    memory: dict[str, float | None] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """One comparison as the benchmarks print it, from times of :func:`now` and peaks of :func:`peak`."""
    mine, theirs = np.median(ours, axis=0), np.median(other, axis=0)
    peaks = [value for value in (memory or {}).values() if value]  # ours, other
    return {
        "name": name,
        "ours": round(float(mine[0]), 4),
        "other": round(float(theirs[0]), 4),
        "ratio": round(float(theirs[0] / mine[0]), 4),
        "unit": "s",
        "memory_ratio": round(peaks[1] / peaks[0], 4) if len(peaks) == 2 else None,
        "peak_mib": memory,
        "seconds": {
            "ours": [round(float(t[0]), 4) for t in ours],
            "other": [round(float(t[0]), 4) for t in other],
        },
        "cpu_ratio": round(float(theirs[1] / mine[1]), 4),
        "settings": asdict(size),
        "hardware": {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        **more,
    }
