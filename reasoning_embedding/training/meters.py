"""What a run writes down: one JSON object a step, TensorBoard, and lines for whoever watches."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from reasoning_embedding.checkpoints import RunFolder, atomic_write, explain_disk_errors

Report = Callable[[str], None]


class Meters:
    """Writes the metrics of a run on the main rank.

    Parameters
    ----------
    run : RunFolder
        Where ``metrics.jsonl`` and ``tensorboard/`` go.
    steps : int
        Steps of the whole run.
    first : int
        Steps already done; later lines of an interrupted run are cut off, so that each step stands once.
    tensorboard : bool
        Also write TensorBoard events, where the library is installed.
    report : callable
        Takes one line of progress every few seconds.
    """

    def __init__(self, run: RunFolder, *, steps: int, first: int, tensorboard: bool, report: Report) -> None:
        self._path, self._steps, self._first, self._report = run.metrics, steps, first, report
        _keep_steps(run.metrics, first)
        self._board = _board(run.path / "tensorboard", first, report) if tensorboard else None
        self._started = self._spoken = time.perf_counter()

    def log(self, record: dict[str, Any]) -> None:
        """Append one step's record; its numbers also go to TensorBoard."""
        with explain_disk_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")
        if self._board is not None:
            scores = {f"evaluation/{task}": value for task, value in record.get("evaluation", {}).items()}
            for name, value in {**record, **scores}.items():
                if name != "step" and isinstance(value, (int, float)):
                    self._board.add_scalar(name, value, record["step"])

    def speak(self, record: dict[str, Any]) -> None:
        """Report progress if some seconds have passed or the run ends."""
        now, step = time.perf_counter(), record["step"]
        if now - self._spoken < 4 and step != self._steps:
            return
        self._spoken = now
        left = (now - self._started) / (step - self._first) * (self._steps - step)
        self._report(
            f"step {step}/{self._steps}  loss {record['loss']:.4f}  accuracy {record['accuracy']:.2f}  "
            f"{record['tokens_per_second']:,.0f} tokens/s  {left:.0f} s left"
        )

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._board is not None:
            self._board.close()


def _keep_steps(path: Path, last: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # the line a killed process was writing
            continue
        if last and record["step"] <= last:  # a run that begins again logs its step 0 again
            kept.append(line + "\n")
    atomic_write(path, "".join(kept))


def _board(folder: Path, first: int, report: Report) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        report("TensorBoard is not installed (extra: tracking); metrics go to metrics.jsonl only")
        return None
    return SummaryWriter(str(folder), purge_step=first + 1 if first else None)


def peak_memory_gib(device: torch.device) -> float:
    """Peak memory so far: of the GPU's allocator, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
