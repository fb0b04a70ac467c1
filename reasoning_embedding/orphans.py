"""Processes that end when the one they work for has ended, however that was: nobody trains on for a killed sweep.

Who starts a process gives it :func:`works_for_this_process` as part of its environment, which grandchildren inherit too,
through torchrun or accelerate; each of them calls :func:`end_with_parent` at its start.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time

VARIABLE = "REASONING_EMBEDDING_WORKS_FOR"
#: Seconds that a process has to save and end when it is asked to, before it is killed.
GRACE = 300.0
_watched: set[tuple[int, str]] = set()


def works_for_this_process() -> dict[str, str]:
    """Return the environment that ties a process, and all it starts, to this one."""
    pid = os.getpid()
    return {VARIABLE: f"{pid}:{_started(pid)}"}


def end_with_parent(grace: float = GRACE) -> None:
    """Let this process be asked to stop (SIGTERM) when the one it works for is gone, and killed `grace` seconds later.

    That is the process whose environment named itself, and the launcher (torchrun, accelerate, deepspeed) where one
    started this rank. A process that nobody started so stays as it is: closing a terminal need not end what nohup keeps.
    """
    named = os.environ.get(VARIABLE, "")
    pid, _, started = named.partition(":")
    if pid.isdecimal() and int(pid) != os.getpid():
        _watch(int(pid), started, grace)
    launcher = os.getppid()
    if "TORCHELASTIC_RUN_ID" in os.environ or _is_launcher(_words_of(launcher)):
        _watch(launcher, _started(launcher), grace)


def _words_of(pid: int) -> list[str]:
    """The command line of a process; empty where it cannot be read."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read().split("\0")
    except OSError:
        pass
    with contextlib.suppress(Exception):  # no Linux: what psutil raises differs by system
        import psutil

        return psutil.Process(pid).cmdline()
    return []


def _is_launcher(words: list[str]) -> bool:
    """Whether a command line starts ranks: ``accelerate launch``, which marks no single process, or deepspeed's launcher.

    Only words before the program that it starts count: a script may lie in a folder of any name.
    """
    for word, following in zip(words[:4], [*words[1:4], ""], strict=False):
        name = os.path.basename(word)  # noqa: PTH119
        if name in ("accelerate", "accelerate-launch") and (following == "launch" or name != "accelerate"):
            return True
        if word in ("accelerate.commands.launch", "deepspeed.launcher.launch"):
            return True
        if word.endswith(("accelerate/commands/launch.py", "deepspeed/launcher/launch.py")):
            return True
    return False


def _watch(pid: int, started: str, grace: float) -> None:
    key = (os.getpid(), f"{pid}:{started}")
    if key in _watched:
        return
    _watched.add(key)

    def wait() -> None:
        _wait_for_end(pid, started)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()


def _wait_for_end(pid: int, started: str) -> None:
    """Return when the process has ended; another one that has its number since does not count."""
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
            try:
                if _started(pid) == started:
                    poll = select.poll()
                    poll.register(descriptor, select.POLLIN)
                    poll.poll()
                    return
            finally:
                os.close(descriptor)
    while _started(pid) == started:  # where a process cannot be waited for: no Linux, or an old one
        time.sleep(1.0)


def _started(pid: int) -> str:
    """When a process began, in the system's own unit; empty where there is none (any more)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            fields = file.read().rpartition(")")[2].split()
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):  # noqa: PTH112
            return ""
    except ProcessLookupError:
        return ""
    else:
        # A zombie has ended: nobody can work for it.
        return "" if fields[0] in ("Z", "X") else fields[19]
    import psutil

    try:
        return str(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return ""
