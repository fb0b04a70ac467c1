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
    assert "  loss: 0.25\n" in out
    assert "  checkpoints: 0 20\n  resumable at: none\n" in out
    assert [line.split() for line in out.splitlines()[-2:]] == [
        ["scored", "step", "cranfield"],
        ["20", "0.4100"],
    ]
    assert run("runs", "show", runs / "unrelated") == 2
    assert "not a run folder" in capsys.readouterr().err


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def pair(tmp_path, **changes):
    """Two runs whose resolved configurations differ in backbone, seed and name, and in `changes`."""
    base = {"kind": "run", "name": "a", "seed": 0, "backbone": {"path": "base"}, "training": {"steps": 3}}
    write_json(tmp_path / "a" / "config.resolved.json", base)
    other = base | {"name": "b", "seed": 1, "backbone": {"path": "sft"}} | changes
    write_json(tmp_path / "b" / "config.resolved.json", other)
    for name in ("a", "b"):
        write_json(
            tmp_path / name / "manifest.json", {"steps": 3, "data_fingerprint": "x", "git_commit": name}
        )
    return tmp_path / "a", tmp_path / "b"


def test_diff_of_a_pair(tmp_path, capsys):
    a, b = pair(tmp_path)
    assert run("runs", "diff", a, b, "--paired") == 0
    assert capsys.readouterr().out.splitlines() == [
        'name: "a" -> "b"',
        "seed: 0 -> 1",
        'backbone.path: "base" -> "sft"',
    ]
    assert run("runs", "diff", a, a, "--paired") == 0
    assert capsys.readouterr().out == "no difference\n"


def test_diff_refuses_what_is_no_pair(tmp_path, capsys):
    a, b = pair(tmp_path, training={"steps": 4})
    assert run("runs", "diff", a, b) == 0
    assert "training.steps: 3 -> 4" in capsys.readouterr().out
    assert run("runs", "diff", a, b, "--paired") == 2
    assert "not a pair: training.steps differ too" in capsys.readouterr().err
    a, b = pair(tmp_path)
    write_json(b / "manifest.json", {"data_fingerprint": "other data"})
    assert run("runs", "diff", a, b, "--paired") == 2
    assert "manifest.data_fingerprint" in capsys.readouterr().err
    write_json(b / "config.resolved.json", {"kind": "experiment"})
    assert run("runs", "diff", a, b) == 2
    assert "kinds run and experiment cannot be compared" in capsys.readouterr().err
    assert run("runs", "diff", a, tmp_path / "gone") == 2
    assert "no run lies here" in capsys.readouterr().err


def test_lineage_follows_every_parent(tmp_path, capsys):
    lineage = tmp_path / "exp" / "lineage"
    write_json(
        lineage / "base" / "provenance.json", {"kind": "pretrain", "content_hash": "b" * 64, "parent": None}
    )
    parent = {"path": str(lineage / "base"), "revision": None, "content_hash": "b" * 64}
    write_json(
        lineage / "sft" / "provenance.json", {"kind": "sft", "content_hash": "5" * 64, "parent": parent}
    )
    checkpoint = tmp_path / "exp" / "runs" / "one" / "checkpoints" / "step-000003"
    made = {"kind": "contrastive", "run": "one", "content_hash": "1" * 64}
    moved = {"path": "/elsewhere/sft", "revision": None, "content_hash": "5" * 64}
    write_json(checkpoint / "provenance.json", made | {"parent": moved})
    hub = {"path": "org/model", "revision": "main", "content_hash": None}
    mine = {"path": str(checkpoint), "revision": None, "content_hash": "1" * 64}
    merged = {"kind": "merge", "content_hash": "e" * 64, "parent": None, "parents": [mine, hub]}
    write_json(tmp_path / "exp" / "merged" / "provenance.json", merged)

    assert run("runs", "lineage", tmp_path / "exp" / "merged") == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  from one step-000003  contrastive  111111111111",
        "    from sft  sft  555555555555",
        "      from base  pretrain  bbbbbbbbbbbb",
        "  from org/model  hub  main",
    ]
    assert run("runs", "lineage", tmp_path / "exp" / "runs" / "one") == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{checkpoint}  contrastive  111111111111"
    assert run("runs", "lineage", tmp_path / "exp") == 2
    assert "no record of what made this" in capsys.readouterr().err
