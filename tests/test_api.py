"""The package from Python: the command line's weights, and what is refused."""

import csv
import functools
import os
import signal
from pathlib import Path

import pandas as pd
import pytest

import reasoning_embedding as rembed
from reasoning_embedding.cli.main import main
from reasoning_embedding.errors import ConfigError, InputError, TrainingError
from tests.factories import write_tiny_backbone
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

    with pytest.raises(TrainingError, match="stopped by SIGINT after step 1"):
        rembed.train(settings("stopped"), rows=ROWS, on_step=press)
    assert rembed.train(settings("stopped"), rows=ROWS, resume=True).finished


def test_mistakes_are_errors_with_their_place(here: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key 'trainin'"):
        rembed.train({**settings("x"), "trainin": {}}, rows=ROWS)
    with pytest.raises(InputError, match=r"rows\[1\]: it is a str"):
        rembed.train(settings("x"), rows=[ROWS[0], "text"])
    with pytest.raises(InputError, match="on_step: it returned 3"):
        rembed.train(settings("y"), rows=ROWS, on_step=lambda step: 3)


def test_importing_is_light() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import reasoning_embedding as r; "
        "r.train; r.load; print(time.perf_counter() - start < 0.2, 'torch' in sys.modules, 'train' in dir(r))"
    )
    assert run_python(code).stdout.split()[1:] == ["False", "True"]
