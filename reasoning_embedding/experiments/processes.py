"""Processes side by side: what they print is passed on as it comes, and kept in a log each."""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from reasoning_embedding.files import explain_disk_errors
from reasoning_embedding.isolation import SERIAL
from reasoning_embedding.orphans import works_for_this_process
from reasoning_embedding.progress import Report
from reasoning_embedding.secrets import known_secrets, mask

#: Keeps libraries' own progress bars and advice out of what a process prints.
QUIET = {"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": SERIAL, "PYTHONWARNINGS": "ignore::FutureWarning"}
#: Seconds to wait for a process of an earlier call, which saves and ends when its parent was killed.
PATIENCE = 60.0


@dataclass(frozen=True)
class EndedProcess:
    """A process that ended: its exit code (negative: the signal that ended it), what it printed, its time."""

    name: str
    code: int
    lines: list[str]
    log: Path
    seconds: float
    processor_seconds: float = 0.0
    """Of all its threads and processes, which other load on the machine hardly changes."""

    @property
    def message(self) -> str:
        """What went wrong: from the last ``error:`` line on, or the last lines."""
        for index in range(len(self.lines) - 1, -1, -1):
            if self.lines[index].startswith("error: "):
                return "\n".join(self.lines[index:]).removeprefix("error: ")
        return "\n".join([f"the process ended with exit code {self.code}", *self.lines[-5:]])

    @property
    def stopped(self) -> bool:
        """Whether it was asked to stop, or killed, rather than failing by itself."""
        return self.code < 0 or self.code in (128 + signal.SIGTERM, 128 + signal.SIGINT)


@dataclass
class _Running:
    process: subprocess.Popen[str]
    slot: int
    started: float
    log: Path
    lines: list[str]


class ProcessPool:
    """At most `jobs` processes at a time; leaving the block asks all of them to stop and waits for them.

    They, and what they start, stop by themselves when this process is killed; see :mod:`reasoning_embedding.orphans`.

    Parameters
    ----------
    jobs : int
        Processes side by side.
    report : callable
        Takes each line a process prints, with its name before it.
    """

    def __init__(self, jobs: int, report: Report) -> None:
        self._jobs, self._report = jobs, report
        self._running: dict[str, _Running] = {}
        self._printed: queue.Queue[tuple[str, str | None]] = queue.Queue()
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = _end_on_sigterm()
        return self

    def __exit__(self, *_: object) -> None:
        for job in self._running.values():
            # The group: accelerate's launcher ends without telling the process that trains.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.process.pid, signal.SIGTERM)
        for job in self._running.values():
            job.process.wait()
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    @property
    def busy(self) -> bool:
        """Whether any process runs."""
        return bool(self._running)

    @property
    def free(self) -> int:
        """How many more may be started."""
        return self._jobs - len(self._running)

    def start(self, name: str, command: list[str], log: Path) -> None:
        """Start a process; its threads and GPUs are an equal share of this machine's."""
        with explain_disk_errors(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("", encoding="utf-8")
        slot = min(set(range(self._jobs)) - {job.slot for job in self._running.values()})
        threads = str(max(1, (os.cpu_count() or 1) // self._jobs))
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            process_group=0,
            env={
                "OMP_NUM_THREADS": threads,
                "RAYON_NUM_THREADS": threads,  # tokenizers
                **QUIET,
                **os.environ,
                **share_of_gpus(slot, self._jobs),
                **works_for_this_process(),
                "PYTHONUNBUFFERED": "1",
            },
        )

        secrets = known_secrets()

        def listen() -> None:
            assert process.stdout is not None
            with log.open("a", encoding="utf-8") as file:
                for raw in process.stdout:
                    # A progress bar rewrites its line; only its last state is worth a line of ours.
                    line = mask(raw.rstrip("\n").rsplit("\r", 1)[-1], *secrets)
                    file.write(line + "\n")
                    file.flush()
                    if line.strip():
                        self._printed.put((name, line))
            self._printed.put((name, None))

        threading.Thread(target=listen, daemon=True).start()
        self._running[name] = _Running(process, slot, time.perf_counter(), log, [])

    def wait(self) -> EndedProcess:
        """Pass on what is printed until a process ends, and return it."""
        while True:
            name, line = self._printed.get()
            if line is None:
                job = self._running.pop(name)
                before = _children_seconds()
                code = job.process.wait()  # nobody else waits for it, so what is added now is its own
                used = _children_seconds() - before
                return EndedProcess(name, code, job.lines, job.log, time.perf_counter() - job.started, used)
            self._running[name].lines.append(line)
            self._report(f"[{name}] {line}")


def _children_seconds() -> float:
    """Processor seconds of all ended processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def share_of_gpus(slot: int, jobs: int) -> dict[str, str]:
    """Return the environment that gives a job its own GPUs, where there are enough for all.

    Parameters
    ----------
    slot : int
        Which of the places side by side, from 0.
    jobs : int
        How many there are.

    Returns
    -------
    dict
        ``CUDA_VISIBLE_DEVICES`` with an equal share of those visible here; empty where there are fewer GPUs
        than jobs, or one job.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        devices = [device for device in visible.split(",") if device.strip()]
    else:
        known = Path("/proc/driver/nvidia/gpus")
        devices = [str(index) for index in range(len(list(known.iterdir())))] if known.is_dir() else []
    share = len(devices) // jobs
    if jobs == 1 or share == 0:
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(devices[slot * share : (slot + 1) * share])}


def _end_on_sigterm() -> Any:
    """Let SIGTERM end this process through its ``finally``, so that no process is left behind."""
    if threading.current_thread() is not threading.main_thread():
        return None

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    return signal.signal(signal.SIGTERM, end)
