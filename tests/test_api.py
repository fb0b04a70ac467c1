"""The package from Python: the command line's weights, and what is refused."""

import csv
import functools
import json
import os
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest

import reasoning_embedding as rembed
from reasoning_embedding.cli.main import main
from reasoning_embedding.errors import ConfigError, InputError, TrainingError
from tests.factories import read_lines, write_lines, write_tiny_backbone
from tests.fresh_python import run_python

ROWS = [
    {"query": f"find the {colour} {animal}", "pos": f"the {colour} {animal} runs in the city"}
    for colour in ("red", "green", "blue", "old")
    for animal in ("cat", "dog", "bird", "fish")
]


def settings(name: str, **more: object) -> dict:
    return {
        "name": name,
        "backbone": {"kind": "pretrained", "path": "base"},
        "data": {"query_max_tokens": 16, "document_max_tokens": 16},
        "training": {"batch_size": 8, "steps": 3, "learning_rate": 1e-3},
        **more,
    }


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tiny_backbone(tmp_path / "base")
    return tmp_path


def weights(run: rembed.TrainedRun | Path) -> bytes:
    path = run if isinstance(run, Path) else run.path
    return (path / "checkpoints" / "step-000003" / "model.safetensors").read_bytes()


def test_python_trains_to_the_weights_of_the_command_line(here: Path) -> None:
    with (here / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["query", "pos"])
        writer.writeheader()
        writer.writerows(ROWS)
    (here / "run.yaml").write_text(
        "kind: run\nname: cli\nbackbone: {kind: pretrained, path: base}\n"
        "data: {sources: [{kind: files, path: pairs.csv}], query_max_tokens: 16, document_max_tokens: 16}\n"
        "training: {batch_size: 8, steps: 3, learning_rate: 1.0e-3}\n"
    )
    with pytest.raises(SystemExit) as caught:
        main(["train", "run.yaml"])
    assert not caught.value.code
    told = weights(Path("runs/cli"))
    assert weights(rembed.train(settings("list"), rows=ROWS)) == told
    assert weights(rembed.train(settings("frame"), rows=pd.read_csv("pairs.csv"))) == told
    assert weights(rembed.train(settings("fewer"), rows=ROWS[1:])) != told


def test_terms_of_a_program_are_held_to_on_resume(here: Path) -> None:
    def lean(embeddings, batch):
        return embeddings.mean(dim=0).square().sum()

    asked = settings("lean")
    run = rembed.train(
        asked, rows=ROWS, terms=[(lean, 0.5)], on_step=lambda s: "stop" if s.step == 2 else None
    )
    assert run.steps[-1] == 2
    for terms in ([], [lean], [(functools.partial(lean), 0.5)]):
        with pytest.raises(InputError, match="other terms of its own"):
            rembed.train(asked, rows=ROWS, terms=terms, resume=True)
    with pytest.raises(InputError, match="the rows are not those"):
        rembed.train(asked, rows=ROWS[1:], terms=[(lean, 0.5)], resume=True)
    whole = rembed.train(settings("whole"), rows=ROWS, terms=[(lean, 0.5)])
    assert weights(rembed.train(asked, rows=ROWS, terms=[(lean, 0.5)], resume=True)) == weights(whole)


def test_the_stop_button_leaves_a_run_that_goes_on(here: Path) -> None:
    def press(step: rembed.StepInfo) -> None:
        if step.step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingError, match=r"stopped by SIGINT after step 1(.|\n)*resume=True in Python"):
        rembed.train(settings("stopped"), rows=ROWS, on_step=press)
    assert rembed.train(settings("stopped"), rows=ROWS, resume=True).finished


def test_mistakes_are_errors_with_their_place(here: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key 'trainin'"):
        rembed.train({**settings("x"), "trainin": {}}, rows=ROWS)
    with pytest.raises(InputError, match=r"rows\[1\]: it is a str"):
        rembed.train(settings("x"), rows=[ROWS[0], "text"])
    with pytest.raises(InputError, match="on_step: it returned 3"):
        rembed.train(settings("y"), rows=ROWS, on_step=lambda step: 3)


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return int(caught.value.code or 0)


def test_mining_gives_the_rows_of_the_command_line(here: Path) -> None:
    write_lines(here / "rows.jsonl", ROWS)
    assert command("data", "mine", "rows.jsonl", "-o", "told.jsonl", "--model", "bm25", "-k", 2) == 0
    asked = {"negatives": 2}
    mined = rembed.mine("rows.jsonl", "file.jsonl", "bm25", **asked)
    held = rembed.mine(rembed.Rows(ROWS), "held.jsonl", "bm25", **asked)
    assert mined.path.read_bytes() == held.path.read_bytes() == Path("told.jsonl").read_bytes()
    assert (mined.rows, mined.negatives) == (held.rows, held.negatives) == (16, 32)
    assert read_lines(mined.path)[0]["neg"]
    fewer = rembed.mine("rows.jsonl", "fewer.jsonl", "bm25", negatives=1)
    assert (fewer.negatives, rembed.mine("rows.jsonl", "fewer.jsonl", "bm25", negatives=1)) == (16, fewer)
    with pytest.raises(InputError, match="fewer"):
        rembed.mine("rows.jsonl", "fewer.jsonl", "bm25", negatives=2)
    with pytest.raises(InputError, match="BM25 has no vectors to index"):
        rembed.mine("rows.jsonl", "other.jsonl", "bm25", faiss="Flat")


def test_publishing_exports_what_the_command_exports(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from reasoning_embedding.publishing import verify

    verified: list[Path] = []
    monkeypatch.setattr(verify, "verify", lambda release, record, report: verified.append(release.folder))
    rembed.train(settings("small"), rows=ROWS)
    words = "runs/small --repo lab/small --license mit --language en --all-steps -o told"
    assert command("publish", *words.split()) == 0
    said = capsys.readouterr().out
    found = rembed.publish(
        "runs/small", "lab/small", license="mit", languages=["en"], all_steps=True, output="made"
    )
    assert verified == [Path("told"), Path("made")]
    assert capsys.readouterr().out == ""
    assert {name: (Path("told/main") / name).read_bytes() for name in found.files()} == {
        name: (found.main / name).read_bytes() for name in found.files()
    }
    assert found.steps == tuple(f"step-{step:06d}" for step in range(4))
    assert "license: mit" in found.card.read_text()
    assert f"card: {Path('told/main/README.md')}" in said
    assert found.url is None
    with pytest.raises(InputError, match="7"):
        rembed.publish("runs/small", "lab/small", step=7)
    with pytest.raises(InputError, match="the model before training"):
        rembed.publish(untrained(), "lab/small")


def untrained() -> Path:
    """A run that has no step but the one before training."""
    run = rembed.train(settings("early"), rows=ROWS)
    for step in run.steps[1:]:
        shutil.rmtree(run.checkpoint(step))
    return run.path


def test_a_sweep_that_is_not_started_says_how_far_it_is(here: Path) -> None:
    grid = {"training.learning_rate": [1e-3, 1e-2], "seed": [0, 1]}
    base = settings("tiny")
    base["data"]["sources"] = [{"kind": "files", "path": "rows.jsonl"}]
    asked = {"name": "s", "base": base, "grid": grid}
    found = rembed.sweep(asked, start=False)
    assert [outcome.state for outcome in found.outcomes] == ["waiting"] * 4
    part = rembed.sweep(asked, start=False, shard="2/2")
    assert [each.run.point for each in part.outcomes] == [each.run.point for each in found.outcomes[1::2]]
    assert (found.page, found.folder.exists()) == (None, False)
    with pytest.raises(InputError, match="no part"):
        rembed.sweep(asked, start=False, shard="3/2")


@pytest.mark.slow  # four processes that train
def test_a_sweep_says_what_the_command_says(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(here / "rows.jsonl", ROWS)
    base = settings("tiny")
    base["data"]["sources"] = [{"kind": "files", "path": "rows.jsonl"}]
    asked = {
        "name": "s",
        "output_dir": "runs",
        "base": base,
        "grid": {"training.learning_rate": [1e-3, 1e-2]},
    }
    found = rembed.sweep(asked)
    assert [outcome.state for outcome in found.outcomes] == ["finished", "finished"]
    assert found.page is not None
    assert found.page.is_file()
    capsys.readouterr()
    Path("sweep.yaml").write_text(json.dumps({"kind": "sweep", **asked}))
    assert command("sweep", "sweep.yaml", "--list", "--strict") == 0
    table = capsys.readouterr().out
    for outcome in found.outcomes:
        assert f"{outcome.value:.4f}" in table
    broken = {**asked, "name": "broken", "base": {**base, "backbone": {"kind": "pretrained", "path": "none"}}}
    with pytest.raises(rembed.SweepError, match="2 of 2 runs failed") as caught:
        rembed.sweep(broken)
    assert [outcome.state for outcome in caught.value.result.outcomes] == ["failed", "failed"]


def test_importing_is_light() -> None:
    code = (
        "import sys; before = set(sys.modules); import reasoning_embedding as r; "
        "[getattr(r, name) for name in ('train', 'load', 'mine', 'publish', 'sweep', 'Rows')]; "
        "print('train' in dir(r), *{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    told, *modules = run_python(code).stdout.split()
    assert told == "True"
    heavy = "torch transformers sentence_transformers datasets pandas numpy pydantic yaml typer".split()
    assert "reasoning_embedding" in modules
    assert not set(heavy) & set(modules)
