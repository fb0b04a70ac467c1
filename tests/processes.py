"""Work in forked processes: they share this one's imports, which a fresh interpreter pays for in seconds."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

Job = Callable[[], object]


class Forked:
    """A child process that does `job`, in a session of its own; what it says goes to a file.

    It ends with the code of :class:`SystemExit`, with 1 and a traceback after any other exception, else with 0.
    """

    def __init__(self, job: Job, output: Path | str = os.devnull) -> None:
        self.output = Path(output)
        self.code: int | None = None
        self.pid = os.fork()
        if not self.pid:
            _do(job, self.output)

    def poll(self) -> int | None:
        """Its exit code, negative where a signal ended it; None while it runs."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int:
        """Wait for its end; its exit code, negative where a signal ended it."""
        code = self._reap(0)
        assert code is not None
        return code

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    @property
    def said(self) -> str:
        """What it has written so far."""
        return self.output.read_text(encoding="utf-8")

    def _reap(self, options: int) -> int | None:
        if self.code is None:
            pid, status = os.waitpid(self.pid, options)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code


def _do(job: Job, output: Path) -> NoReturn:
    code = 1
    try:
        os.setsid()
        _own_locks()
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout = sys.stderr = open(1, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
        job()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:  # noqa: BLE001 - a child of a test must never run on as a test
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


def _own_locks() -> None:
    """Let go of tqdm's lock, which forked processes share: one that is killed amid a bar would keep it for ever."""
    bars = sys.modules.get("tqdm.std")
    if bars is not None:
        bars.tqdm.set_lock(threading.RLock())


def verb(*words: object) -> None:
    """Run the command line in this process, as the console script does."""
    from reasoning_embedding.cli.main import main

    try:
        main([str(word) for word in words])
    except SystemExit as end:
        if end.code:
            raise


def torchrun(ranks: int, *words: object) -> Job:
    """``torchrun --nproc_per_node RANKS -m reasoning_embedding WORDS``, whose ranks are forked."""

    def job() -> None:
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        launch = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=ranks,
            run_id="test",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            monitor_interval=0.05,
            start_method="fork",
        )
        elastic_launch(launch, verb)(*words)

    return job


def accelerate_launch(options: Sequence[str], *words: object) -> Job:
    """``accelerate launch OPTIONS -m reasoning_embedding WORDS``, whose one process is this one."""

    def job() -> None:
        from accelerate.commands import launch

        class Process:
            """What accelerate starts: the same words in the same environment, without a new interpreter."""

            returncode = 0

            def __init__(self, command: list[str], env: dict[str, str]) -> None:
                os.environ.clear()
                os.environ.update(env)
                assert command[1:3] == ["-m", "reasoning_embedding"], command
                verb(*command[3:])

            def wait(self) -> None:
                pass

        starter: Any = launch
        starter.subprocess = SimpleNamespace(Popen=Process)
        asked = [*options, "-m", "reasoning_embedding", *map(str, words)]
        launch.launch_command(launch.launch_command_parser().parse_args(asked))

    return job
