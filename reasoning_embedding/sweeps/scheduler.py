"""Running stages as processes, as many side by side as asked for, their words passed on as they come."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints import explain_disk_errors
from reasoning_embedding.errors import ReasoningEmbeddingError

from .stages import Ledger, Stage

Report = Callable[[str], None]
#: Keeps libraries' own progress bars and advice out of what a stage says.
QUIET = {"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore::FutureWarning"}


class StageError(ReasoningEmbeddingError):
    """A stage failed; carries the exit code of its process."""

    def __init__(self, name: str, message: str, log: Path, exit_code: int) -> None:
        super().__init__(message, where=name, todo=f"its whole log is {log}; finished stages are kept")
        self.exit_code = exit_code if exit_code > 0 else 1


@dataclass
class _Running:
    process: subprocess.Popen[str]
    started: float
    log: Path
    lines: list[str]


def run_stages(folder: Path, stages: list[Stage], ledger: Ledger, *, jobs: int, report: Report) -> None:
    """Run what is not done yet, each stage after what it needs.

    Parameters
    ----------
    folder : Path
        The experiment's folder, which holds its resolved configuration.
    stages : list of Stage
        Parents first.
    ledger : Ledger
        Knows what is done.
    jobs : int
        Processes side by side.
    report : callable
        Takes each line a stage says, with the stage's name before it.

    Raises
    ------
    StageError
        When a stage fails; the others are asked to stop and save first.
    """
    done = {stage.name for stage in stages if ledger.is_done(stage.name)}
    for name in (stage.name for stage in stages if stage.name in done):
        report(f"[{name}] done before")
    waiting = [stage for stage in stages if stage.name not in done]
    running: dict[str, _Running] = {}
    words: queue.Queue[tuple[str, str | None]] = queue.Queue()
    before = _end_on_sigterm()
    try:
        while waiting or running:
            ready = [stage for stage in waiting if done.issuperset((*stage.needs, *stage.after))]
            for stage in ready[: jobs - len(running)]:
                waiting.remove(stage)
                running[stage.name] = _start(folder, stage.name, jobs, words)
            name, line = words.get()
            if line is not None:
                running[name].lines.append(line)
                report(f"[{name}] {line}")
                continue
            job = running.pop(name)
            code = job.process.wait()
            if code:
                raise StageError(name, _last_words(job.lines, code), job.log, code)
            seconds = time.perf_counter() - job.started
            ledger.finish(name, seconds)
            done.add(name)
            report(f"[{name}] done in {seconds:.0f} s")
    finally:
        for job in running.values():
            job.process.terminate()
        for job in running.values():
            job.process.wait()
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _end_on_sigterm() -> Any:
    """Let SIGTERM end this process through its ``finally``, so that no stage is left behind."""
    if threading.current_thread() is not threading.main_thread():
        return None

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    return signal.signal(signal.SIGTERM, end)


def _start(folder: Path, name: str, jobs: int, words: queue.Queue[tuple[str, str | None]]) -> _Running:
    log = folder / "logs" / f"{name}.log"
    with explain_disk_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("", encoding="utf-8")
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    process = subprocess.Popen(
        [sys.executable, "-m", "reasoning_embedding.sweeps.work", str(folder), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env={"OMP_NUM_THREADS": threads, **QUIET, **os.environ, "PYTHONUNBUFFERED": "1"},
    )

    def listen() -> None:
        assert process.stdout is not None
        with log.open("a", encoding="utf-8") as file:
            for raw in process.stdout:
                # A progress bar rewrites its line; only its last state is worth a line of ours.
                line = raw.rstrip("\n").rsplit("\r", 1)[-1]
                file.write(line + "\n")
                file.flush()
                if line.strip():
                    words.put((name, line))
        words.put((name, None))

    threading.Thread(target=listen, daemon=True).start()
    return _Running(process, time.perf_counter(), log, [])


def _last_words(lines: list[str], code: int) -> str:
    """The error message of a stage: from its ``error:`` line on, or its last lines."""
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].startswith("error: "):
            return "\n".join(lines[index:]).removeprefix("error: ")
    return "\n".join([f"the process ended with exit code {code}", *lines[-5:]])
