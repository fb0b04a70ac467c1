"""Trackers: what they are told, when they are offline, and that none can hold up or end a run."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.errors import SetupError
from reasoning_embedding.training.trackers import Background, has_wandb_key, open_trackers, require_trackers
from tests.factories import run_config

#: A library of wandb's form that writes down what it is told.
LIBRARY = """
import json
from pathlib import Path
FILE = Path({file!r})
def say(*event):
    with FILE.open("a") as file:
        file.write(json.dumps(event) + "\\n")
class Settings:
    def __init__(self, **values): pass
def init(**values):
    values.pop("settings", None)
    say("init", values)
    import sys
    return sys.modules[__name__]
def log(values, step):
    say("log", values, step)
def finish():
    say("finish")
"""


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make ``wandb`` and ``trackio`` importable, writing to the file that is returned."""
    events = tmp_path / "events.jsonl"
    for name in ("wandb", "trackio"):
        (tmp_path / "path" / name).mkdir(parents=True)
        (tmp_path / "path" / name / "__init__.py").write_text(LIBRARY.format(file=str(events)))
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    yield events
    for name in ("wandb", "trackio"):
        sys.modules.pop(name, None)


def settings(**logging: Any) -> config.RunConfig:
    return run_config(backbone={"path": "https://me:secret@host/model"}, logging=logging)


def events(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_library_gets_the_numbers_under_its_group(name: str, libraries: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run = settings(trackers=[name], group="sweep", project="mine")
    (tracker,) = open_trackers(run, RunFolder(tmp_path), first=0, report=said.append)
    tracker.log({"loss": 2.0}, 1)
    tracker.log({"loss": 1.0}, 2)
    tracker.close()
    init, *rest = events(libraries)
    assert rest == [["log", {"loss": 2.0}, 1], ["log", {"loss": 1.0}, 2], ["finish"]]
    told = init[1]
    assert (told["project"], told["group"], told["name"], told["resume"]) == ("mine", "sweep", "run", "allow")
    assert told["config"]["backbone"]["path"] == "https://***@host/model"
    if name == "wandb":
        assert told["mode"] == "offline", "there is no key"
        assert "wandb sync" in said[0]


def test_wandb_is_online_where_it_finds_a_key(
    libraries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not has_wandb_key()
    netrc = tmp_path / "netrc"
    netrc.write_text("machine api.wandb.ai\n  login user\n  password " + "0" * 40 + "\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert has_wandb_key()
    netrc.write_text("machine elsewhere.org\n  login user\n  password x\n")
    assert not has_wandb_key()
    netrc.write_text("not a netrc file {")
    assert not has_wandb_key()
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    (tracker,) = open_trackers(settings(trackers=["wandb"]), RunFolder(tmp_path), first=0, report=print)
    tracker.close()
    assert events(libraries)[0][1]["mode"] == "online"


def test_a_resumed_run_is_the_same_run(libraries: Path, tmp_path: Path) -> None:
    for first in (0, 7):
        for tracker in open_trackers(
            settings(trackers=["wandb"]), RunFolder(tmp_path), first=first, report=print
        ):
            tracker.close()
    one, two = (event[1]["id"] for event in events(libraries) if event[0] == "init")
    assert one == two


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        SetupError, match=r"names trackio, which is not installed\n  -> pip install '.*\[trackio\]'"
    ):
        require_trackers(settings(trackers=["trackio"]))


def test_tensorboard_is_the_default_and_can_be_left_out(tmp_path: Path) -> None:
    assert settings().logging.trackers == ["tensorboard"]
    for logging in ({"tensorboard": False}, {"trackers": []}):
        assert open_trackers(settings(**logging), RunFolder(tmp_path), first=0, report=print) == []


def test_tensorboard_gets_the_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tracker,) = open_trackers(settings(), RunFolder(tmp_path), first=0, report=print)
    tracker.log({"loss": 2.0, "time/forward": 0.5}, 3)
    tracker.close()
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(3, 2.0)]
    assert found.Scalars("time/forward")[0].value == 0.5


class Stuck:
    """Waits for a server that never answers."""

    def __init__(self, forever: threading.Event) -> None:
        self.forever = forever

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.forever.wait(60)

    def close(self) -> None:
        pass


def test_a_server_that_never_answers_holds_up_nothing() -> None:
    forever, said = threading.Event(), []
    started = time.monotonic()
    tracker = Background("wandb", lambda: Stuck(forever), said.append)
    for step in range(1000):
        tracker.log({"loss": 1.0}, step)
    tracker.close(patience=0.05)
    assert time.monotonic() - started < 5
    assert said == ["wandb still waits for its server and is left; metrics.jsonl has every step"]
    forever.set()


def test_a_tracker_that_fails_is_said_once_and_left() -> None:
    said: list[str] = []

    def start() -> Stuck:
        raise OSError("login refused for token=abcdefgh")

    tracker = Background("wandb", start, said.append)
    tracker.close()
    tracker.log({"loss": 1.0}, 1)
    assert said == ["wandb failed (login refused for token=***); metrics go to metrics.jsonl only"]
