"""``rembed runs``: what the table says about folders in every state."""

import json
import os

import pytest

from reasoning_embedding.cli.main import main


def run(*words) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return int(caught.value.code or 0)


def make_run(folder, *, steps, planned, metrics, age=0.0):
    folder.mkdir(parents=True)
    (folder / "config.resolved.json").write_text(json.dumps({"kind": "run"}))
    (folder / "manifest.json").write_text(json.dumps({"steps": planned}))
    for step in steps:
        (folder / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(metrics)
    now = (folder / "metrics.jsonl").stat().st_mtime
    os.utime(folder / "metrics.jsonl", (now - age, now - age))


@pytest.fixture
def runs(tmp_path):
    lines = '{"step": 19, "loss": 0.5}\n{"step": 20, "loss": 0.25}\n'
    make_run(tmp_path / "done", steps=[0, 20], planned=20, metrics=lines)
    make_run(
        tmp_path / "killed",
        steps=[0, 8],
        planned=20,
        metrics=lines.replace("20", "11") + '{"step": 12, "lo',
        age=9999,
    )
    make_run(tmp_path / "busy", steps=[0], planned=100, metrics=lines)
    experiment = tmp_path / "exp"
    make_run(experiment / "runs" / "base", steps=[0], planned=None, metrics="", age=9999)
    (experiment / "config.resolved.json").write_text(json.dumps({"kind": "experiment"}))
    stage = experiment / "lineage" / "sft"
    stage.mkdir(parents=True)
    (stage / "provenance.json").write_text(json.dumps({"kind": "sft"}))
    (tmp_path / "unrelated").mkdir()
    (tmp_path / ".done.partial").mkdir()
    return tmp_path


def test_ls_lists_every_folder_once(runs, capsys):
    assert run("runs", "ls", runs) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["name", "kind", "step", "loss", "state"],
        ["busy", "run", "20", "0.2500", "running", "of", "100"],
        ["done", "run", "20", "0.2500", "finished"],
        ["exp", "experiment", "-", "-", "unfinished"],
        ["exp/lineage/sft", "sft", "-", "-", "finished"],
        ["exp/runs/base", "run", "0", "-", "stopped"],
        ["killed", "run", "11", "0.2500", "stopped", "of", "20"],
    ]


def test_ls_of_nothing(tmp_path, capsys):
    assert run("runs", "ls", tmp_path) == 0
    assert capsys.readouterr().out == f"no run below {tmp_path}\n"
    assert run("runs", "ls", tmp_path / "gone") == 2
    assert "no such folder" in capsys.readouterr().err


def test_show(runs, capsys):
    scores = runs / "done" / "evaluation" / "step-000020"
    scores.mkdir(parents=True)
    (scores / "scores.json").write_text(json.dumps({"tasks": [{"task": "cranfield", "main_score": 0.41}]}))
    assert run("runs", "show", runs / "done") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{runs / 'done'}: run, finished\n")
    assert "  loss: 0.25\n  checkpoints: 0 20\n  resumable at: none\n" in out
    assert "  evaluation/step-000020: cranfield 0.4100\n" in out
    assert run("runs", "show", runs / "unrelated") == 2
    assert "not a run folder" in capsys.readouterr().err
