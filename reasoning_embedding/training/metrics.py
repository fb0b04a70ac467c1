"""What a run writes down: one JSON object a step, numbers for trackers, and lines for whoever watches."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder, stock_model
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.distributed import World
from reasoning_embedding.files import (
    atomic_write,
    explain_disk_errors,
    json_line,
    read_json_lines,
    read_json_lines_as_written,
)
from reasoning_embedding.planning.devices import find_device
from reasoning_embedding.planning.shapes import decoder_shape, training_flops
from reasoning_embedding.progress import Report, Throttle, seconds_left

from .step import StepOutput
from .trackers import Tracker

#: Seconds between two lines of progress.
_INTERVAL = 4.0


class Metrics:
    """Writes the metrics of a run on the main rank.

    Parameters
    ----------
    run : RunFolder
        Where ``metrics.jsonl`` goes.
    steps : int
        Steps of the whole run.
    first : int
        Steps already done; later lines of an interrupted run are cut off, so that each step stands once.
    every : int
        Steps from one line to the next; the last step and scored ones always have one.
    trackers : sequence of Tracker
        Also take the numbers; see :func:`.trackers.open_trackers`.
    report : callable
        Takes one line of progress every few seconds.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        steps: int,
        first: int,
        every: int = 1,
        trackers: Sequence[Tracker],
        report: Report,
    ) -> None:
        self._path, self._steps, self._first, self._every = run.metrics, steps, first, every
        if run.metrics.exists():
            # A run that begins again logs its step 0 again.
            cut_log(run, first, report)
        self._trackers, self._report = trackers, report
        self._throttle = Throttle(_INTERVAL)

    def step(self, record: dict[str, Any]) -> None:
        """Take the record of a finished step: write it if it is its turn, and say how far the run is."""
        step = record["step"]
        if step % self._every == 0 or step == self._steps or "evaluation" in record:
            self.write(record)
        if self._throttle.is_due(last=step == self._steps):
            elapsed = time.monotonic() - self._throttle.started
            left = seconds_left(elapsed, step - self._first, self._steps - step)
            left_out = f"{record['masked']:,.0f} known answers left out  " if record.get("masked") else ""
            self._report(
                f"step {step}/{self._steps}  loss {record['loss']:.4f}  accuracy {record['accuracy']:.2f}  {left_out}"
                f"{record['tokens_per_second']:,.0f} tokens/s  {left:.0f} s left"
            )

    def write(self, record: dict[str, Any]) -> None:
        """Append one step's record; its numbers also go to the trackers."""
        with explain_disk_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json_line(record))
        parts = {
            f"{part}/{name}": value
            for part in ("evaluation", "time")
            for name, value in record.get(part, {}).items()
        }
        numbers = {
            name: value
            for name, value in {**record, **parts}.items()
            if name != "step" and isinstance(value, (int, float))
        }
        for tracker in self._trackers:
            tracker.log(numbers, record["step"])

    def close(self) -> None:
        """Let the trackers finish."""
        for tracker in self._trackers:
            tracker.close()


def cut_log(run: RunFolder, last: int, report: Report) -> None:
    """Keep the lines of ``metrics.jsonl`` up to a step, as they are, and say which were damaged.

    Parameters
    ----------
    run : RunFolder
        The run.
    last : int
        The last step that stays; 0: none does.
    report : callable
        Takes a line a damaged one.
    """
    kept = []

    def left_out(where: str) -> None:
        report(f"{where}; the line is left out")

    for line, record in read_json_lines_as_written(run.metrics, damaged=left_out):
        if not isinstance(record.get("step"), int):
            left_out(f"{run.metrics}: a line names no step")
        elif last and record["step"] <= last:
            kept.append(line)
    atomic_write(run.metrics, "".join(kept))


def set_scores_aside(run: RunFolder, step: int, scores: dict[str, float], report: Report) -> None:
    """Let the log of a run begin its scores anew at a step: those of other tasks are no curve with what follows.

    Parameters
    ----------
    run : RunFolder
        The run. Its older scores stay in ``metrics.jsonl`` under ``evaluation_before``; ``best.json``, which they
        chose, goes.
    step : int
        The step that is scored anew; later lines are cut off.
    scores : dict
        Its scores.
    report : callable
        Takes a line a damaged one.
    """
    cut_log(run, step, report)
    records = read_json_lines(run.metrics)
    for record in records:
        if "evaluation" in record:
            record["evaluation_before"] = [*record.get("evaluation_before", []), record.pop("evaluation")]
    if not records or records[-1]["step"] != step:
        records.append({"step": step})
    records[-1]["evaluation"] = scores
    atomic_write(run.metrics, "".join(map(json_line, records)), exact=True)
    run.best.unlink(missing_ok=True)


class Throughput:
    """Measures how fast and how full a step was.

    Parameters
    ----------
    embedder : Embedder
        The model, whose sizes say what a token costs.
    settings : config.RunConfig
        ``training.lora`` and ``logging.peak_tflops``.
    world : World
        The ranks and this one's device.
    """

    def __init__(self, embedder: Embedder, settings: config.RunConfig, world: World) -> None:
        self._shape = decoder_shape(stock_model(embedder).config)
        self._full = settings.training.lora is None
        self._world, self._peak = world, _peak_flops(settings.logging, world.device)

    def of(self, batch: Batch, output: StepOutput, times: dict[str, float]) -> dict[str, Any]:
        """Return what a step's record says of it, for :class:`Metrics`.

        Parameters
        ----------
        batch : Batch
            What was trained on.
        output : StepOutput
            What the step measured.
        times : dict of str to float
            Seconds by phase since the last step. ``save``, ``evaluation`` and ``callbacks`` are not of the step: a
            checkpoint is written after its step's record, so its time stands in the next one.

        Notes
        -----
        MFU is :func:`~reasoning_embedding.planning.shapes.training_flops` a second over the published bf16 peak
        of all ranks' devices, or ``logging.peak_tflops``; None where neither is known. Communication that an
        engine overlaps with the backward pass counts as backward.
        """
        beside = sum(times.get(name, 0) for name in ("save", "evaluation", "callbacks"))
        seconds = sum(times.values()) - beside
        lengths = batch.lengths.astype(float)
        flops = training_flops(self._shape, lengths.sum(), (lengths**2).sum(), full=self._full)
        peak = self._peak * self._world.size if self._peak is not None else None
        return {
            "tokens": output.tokens,
            "tokens_per_second": output.tokens / seconds,
            "queries_per_second": len(batch.query) / seconds,
            "padding_efficiency": output.tokens / output.computed_tokens,
            "token_imbalance": output.imbalance,
            "mfu": flops / seconds / peak if peak is not None else None,
            "seconds": seconds,
            "time": times,
            "peak_memory_gib": peak_memory_gib(self._world.device),
        }


def _peak_flops(logging: config.Logging, device: torch.device) -> float | None:
    """Operations a second that a rank's device can do at most, where that is known."""
    if logging.peak_tflops is not None:
        return logging.peak_tflops * 1e12
    known = find_device(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return known.tflops * 1e12 if known is not None else None


def peak_memory_gib(device: torch.device) -> float:
    """Peak memory so far: of the GPU's allocator, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
