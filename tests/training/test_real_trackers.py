"""The real wandb, offline, and the real trackio: what reaches their files. Skipped where they are not installed."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Opens a tracker as a run does, twice: at its start, and where it is resumed after two steps.
RUN = """
import sys
from pathlib import Path
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.training.trackers import open_trackers, require_trackers
from tests.factories import run_config

settings = run_config(logging={"trackers": [sys.argv[1]], "project": "mine", "group": "ours"})
require_trackers(settings)
for first in (0, 2):
    [tracker] = open_trackers(settings, RunFolder(Path("run")), first=first, report=print)
    for step in (1, 2):
        tracker.log({"loss": 4.0 - (first + step) / 64, "time/forward": 0.5}, first + step)
    tracker.close(patience=120)
"""


def run(name: str, folder: Path) -> str:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    (folder / "run").mkdir()
    without = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "TRACKIO_"))}
    environment = without | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "NETRC": str(folder / "no-netrc"),
        "TRACKIO_DIR": str(folder / "trackio"),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, name],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stdout, done.stdout
    return done.stdout


@pytest.mark.slow
def test_wandb_keeps_the_run_offline_without_a_key(tmp_path: Path) -> None:
    said = run("wandb", tmp_path)
    assert "wandb is offline; `wandb sync" in said
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2, "one for each part of the run"
    assert len({file.name for file in files}) == 1, "of one run"
    for file, losses in zip(files, ((3.984375, 3.96875), (3.953125, 3.9375)), strict=True):
        written = file.read_bytes()
        for text in ("mine", "ours", "loss", "time/forward", *map(str, losses)):
            assert text.encode() in written, text
        assert b"4.25" not in written, "a number that was never logged"


@pytest.mark.slow
def test_trackio_has_every_step_of_one_run(tmp_path: Path) -> None:
    run("trackio", tmp_path)
    with sqlite3.connect(tmp_path / "trackio" / "mine.db") as base:
        rows = base.execute("SELECT run_id, run_name, step, metrics FROM metrics ORDER BY step").fetchall()
        configs = base.execute("SELECT config FROM configs").fetchall()
    assert len({row[0] for row in rows}) == 1, "a resumed run is the same run"
    assert [(name, step, json.loads(text)["loss"]) for _, name, step, text in rows] == [
        ("run", step, 4.0 - step / 64) for step in (1, 2, 3, 4)
    ]
    assert b"learning_rate" in bytes(configs[0][0])
