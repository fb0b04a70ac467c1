"""Processes end with the one they work for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reasoning_embedding import orphans
from reasoning_embedding.orphans import VARIABLE, end_with_parent, works_for_this_process
from tests.processes import Forked


def alive(pid: int) -> bool:
    return orphans._started(pid) != ""


def ends(pid: int, within: float = 5.0) -> bool:
    deadline = time.monotonic() + within
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


def read_pid(file: Path) -> int:
    deadline = time.monotonic() + 20
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(file.read_text())


WORKER = """
import os, signal, sys, time
from pathlib import Path
from reasoning_embedding.orphans import end_with_parent
end_with_parent(grace=0.3)
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, lambda *_: Path(sys.argv[1] + ".asked").write_text("asked"))
Path(sys.argv[1]).write_text(str(os.getpid()))
while True:
    time.sleep(0.05)
"""


def start_worker(file: Path, kind: str, environment: dict[str, str], through: tuple[str, ...] = ()) -> None:
    words = [*through, sys.executable, "-c", WORKER, str(file), kind]
    subprocess.Popen(words, env={**os.environ, **environment}, start_new_session=True)


SHELL = ("sh", "-c", '"$@"; true', "sh")


@pytest.mark.parametrize("kind", ["plain", "deaf"])
@pytest.mark.parametrize("through", [(), SHELL], ids=["child", "grandchild"])
def test_a_worker_ends_when_its_parent_is_killed(tmp_path: Path, kind: str, through: tuple[str, ...]) -> None:
    file = tmp_path / "pid"

    def parent() -> None:
        start_worker(file, kind, works_for_this_process(), through)
        time.sleep(60)

    child = Forked(parent)
    pid = read_pid(file)
    assert alive(pid)
    child.send(signal.SIGKILL)
    child.wait()
    assert ends(pid)
    assert Path(f"{file}.asked").exists() == (kind == "deaf"), "asked before it is killed"


def test_the_control_a_process_that_nobody_named_lives_on(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def parent() -> None:
        start_worker(file, "plain", {VARIABLE: ""})
        time.sleep(60)

    child = Forked(parent)
    pid = read_pid(file)
    child.send(signal.SIGKILL)
    child.wait()
    time.sleep(0.5)
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)


def test_a_worker_whose_parent_is_gone_at_its_start_ends(tmp_path: Path) -> None:
    gone = Forked(lambda: None)
    gone.wait()
    ended = subprocess.run(
        [sys.executable, "-c", WORKER, str(tmp_path / "pid"), "plain"],
        env={**os.environ, VARIABLE: f"{gone.pid}:1"},
        timeout=20,
        check=False,
    )
    assert ended.returncode == -signal.SIGTERM


def test_another_process_with_the_same_number_does_not_count(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WORKER, str(tmp_path / "pid"), "plain"],
        env={**os.environ, VARIABLE: f"{os.getpid()}:1"},
        timeout=20,
        check=False,
    )
    assert ended.returncode == -signal.SIGTERM


def test_where_no_process_can_be_waited_for_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    monkeypatch.setattr(orphans.time, "sleep", lambda seconds: None)
    child = Forked(lambda: None)
    started = orphans._started(child.pid)
    child.wait()
    orphans._wait_for_end(child.pid, started or "1")
    assert not orphans._started(child.pid)


def test_a_rank_of_torchrun_ends_with_its_agent(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def agent() -> None:
        start_worker(file, "plain", {"TORCHELASTIC_RUN_ID": "job", VARIABLE: ""})
        time.sleep(60)

    child = Forked(agent)
    pid = read_pid(file)
    child.send(signal.SIGKILL)
    child.wait()
    assert ends(pid)


@pytest.mark.parametrize(
    ("words", "launches"),
    [
        ("/v/bin/python /v/bin/accelerate launch --cpu -m reasoning_embedding train x.yaml", True),
        ("/v/bin/python -m accelerate.commands.launch -m reasoning_embedding train x.yaml", True),
        ("python /lib/accelerate/commands/launch.py --cpu train.py", True),
        ("/v/bin/python /v/bin/accelerate-launch train.py", True),
        ("python -u -m deepspeed.launcher.launch --world_info=e30= train.py", True),
        ("/v/bin/python /srv/accelerate/rembed train launch", False),
        ("nohup /v/bin/rembed train accelerate launch", False),
        ("bash", False),
        ("", False),
    ],
)
def test_a_launcher_is_known_by_its_command(words: str, launches: bool) -> None:
    assert orphans._is_launcher(words.split()) == launches


def test_a_process_of_accelerate_launch_ends_with_it(tmp_path: Path) -> None:
    """Accelerate starts a single process without torchrun's mark, and would leave it behind."""
    script, file = tmp_path / "work.py", tmp_path / "pid"
    script.write_text(WORKER)
    # The words by which it is known, without the seconds that importing accelerate takes.
    launcher = tmp_path / "accelerate"
    launcher.write_text("import subprocess, sys\nsubprocess.run([sys.executable, *sys.argv[2:]])\n")
    words = [sys.executable, str(launcher), "launch", str(script), str(file), "plain"]
    started = subprocess.Popen(words, env={**os.environ, VARIABLE: ""})
    pid = read_pid(file)
    assert alive(pid)
    started.kill()
    started.wait()
    assert ends(pid)


def test_it_watches_once_and_not_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    monkeypatch.setattr(orphans.threading.Thread, "start", lambda self: started.append(1))
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for name, value in works_for_this_process().items():
        monkeypatch.setenv(name, value)
    end_with_parent()
    assert started == []
    monkeypatch.setenv(VARIABLE, f"{os.getppid()}:{orphans._started(os.getppid())}")
    end_with_parent()
    end_with_parent()
    assert started == [1]
