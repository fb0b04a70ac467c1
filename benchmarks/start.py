"""What a user waits for before anything runs: help, and the check of a configuration."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import take_turns
from reasoning_embedding.progress import Report

REPEATS = 5
_RUN = """kind: run
name: start
backbone: {kind: pretrained, path: Qwen/Qwen3-0.6B-Base}
data: {sources: [{kind: world}]}
"""
#: What a training script of one's own imports before it can find a mistake in its arguments.
_IMPORT = ["-c", "import sentence_transformers.sentence_transformer.trainer"]


def bench_start(*, quick: bool = False, report: Report = lambda line: None) -> Iterator[dict[str, Any]]:
    """Time ``rembed --help`` and ``rembed config check`` in fresh processes.

    Parameters
    ----------
    quick : bool
        The same, once instead of five times.
    report : callable
        Takes a line of progress.

    Yields
    ------
    dict
        ``start/help`` and ``start/check``: ``ours`` and ``other`` in seconds by the clock, medians of processes
        that take turns; ``other`` imports sentence-transformers' trainer and ends.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run.yaml"
        run.write_text(_RUN, encoding="utf-8")
        ours = ["-m", "reasoning_embedding"]
        commands = {
            "help": [*ours, "--help"],
            "check": [*ours, "config", "check", str(run)],
            "other": _IMPORT,
        }
        seconds = take_turns(
            {name: partial(_seconds, words) for name, words in commands.items()},
            repeats=1 if quick else REPEATS,
        )
    other = statistics.median(seconds["other"])
    for name in ("help", "check"):
        median = statistics.median(seconds[name])
        report(f"start/{name}: {median:.2f} s")
        yield {
            "name": f"start/{name}",
            "ours": round(median, 4),
            "other": round(other, 4),
            "ratio": round(other / median, 4),
            "unit": "seconds of a process; other: import of sentence-transformers' trainer",
            "memory_ratio": None,
            "seconds": {"ours": seconds[name], "other": seconds["other"]},
        }


def _seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return time.perf_counter() - start
