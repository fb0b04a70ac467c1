"""Models that cannot be what they say: an error by name, exit code 2, before anything is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reasoning_embedding.cli.main import app
from reasoning_embedding.files import read_json, write_json
from tests.factories import run_settings, write_lines
from tests.library_models import write_library_model


def _change(file: Path, **changes: Any) -> None:
    write_json(file, {**read_json(file), **changes})


#: What is done to a folder with one head, and the words of the error.
DAMAGED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "an unknown pooling": (
        lambda folder: _change(folder / "1_Pooling" / "config.json", pooling_mode="medium"),
        "there is no pooling 'medium'",
    ),
    "a Dense without weights": (
        lambda folder: (folder / "2_Dense" / "model.safetensors").unlink(),
        "2_Dense: the weights of this head are missing",
    ),
    "a Dense without its config": (
        lambda folder: (folder / "2_Dense" / "config.json").unlink(),
        "2_Dense",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model"),
}
#: What a run says of its readout that cannot be, and the words of the error.
CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "the first token of a causal model": ({"attention": "causal", "pooling": "first"}, "first"),
    "an unknown pooling": ({"pooling": "medium"}, "medium"),
}


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_library_model(
        tmp_path_factory.mktemp("embedder") / "model", bidirectional=True, heads=[(8, "Tanh")]
    )


def _refused(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 2, f"exit {result.exit_code}\n{result.output}\n{result.exception!r}"
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def _run(folder: Path, **sections: Any) -> Path:
    rows = [{"query": f"red {number}", "pos": [f"a red {number}"]} for number in range(8)]
    settings = run_settings(
        name="run",
        output_dir=str(folder / "runs"),
        data={
            "sources": [{"kind": "files", "path": str(write_lines(folder / "rows.jsonl", rows))}],
            "negatives": 0,
        },
        training={"batch_size": 4, "steps": 1, "precision": "fp32", "threads": 1},
        **sections,
    )
    (folder / "run.yaml").write_text(json.dumps(settings))
    return folder / "run.yaml"


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_embedder_is_named_by_every_verb(
    embedder: Path, beir: Path, tmp_path: Path, what: str
) -> None:
    damage, words = DAMAGED[what]
    model = tmp_path / "model"
    shutil.copytree(embedder, model)
    damage(model)
    (tmp_path / "texts.txt").write_text("red cat\n")
    out = tmp_path / "out"
    assert words in _refused("embed", model, tmp_path / "texts.txt", "-o", tmp_path / "out.npy")
    assert words in _refused("evaluate", model, "-t", beir, "-o", out)
    settings = _run(tmp_path, backbone={"kind": "pretrained", "path": str(model)})
    assert words in _refused("train", settings)
    assert words in _refused("data", "score", model, tmp_path / "rows.jsonl", "-o", tmp_path / "scored.jsonl")
    assert not (tmp_path / "out.npy").exists()
    assert not list(tmp_path.rglob("scores.json"))
    assert not list(tmp_path.rglob("step-*"))
    assert not (tmp_path / "scored.jsonl").exists()


def test_a_revision_of_a_folder_is_refused_by_every_verb(embedder: Path, beir: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("red cat\n")
    words = "a folder has no revisions, so 'v1' names nothing"
    assert words in _refused("embed", f"{embedder}@v1", tmp_path / "texts.txt", "-o", tmp_path / "out.npy")
    assert words in _refused("evaluate", f"{embedder}@v1", "-t", beir, "-o", tmp_path / "out")
    settings = _run(tmp_path, backbone={"kind": "pretrained", "path": str(embedder), "revision": "v1"})
    assert words in _refused("train", settings)
    score = ("data", "score", f"{embedder}@v1", tmp_path / "rows.jsonl", "-o", tmp_path / "scored.jsonl")
    assert words in _refused(*score)
    assert not list(tmp_path.rglob("step-*"))


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_readout_that_cannot_be_is_refused(embedder: Path, tmp_path: Path, what: str) -> None:
    readout, words = CONTRADICTIONS[what]
    settings = _run(tmp_path, backbone={"kind": "pretrained", "path": str(embedder)}, readout=readout)
    assert words in _refused("train", settings)
    assert not list(tmp_path.rglob("step-*"))


def test_a_run_whose_checkpoint_reads_out_otherwise_does_not_go_on(
    embedder: Path, beir: Path, tmp_path: Path
) -> None:
    """Its pooling was changed by hand after it was saved."""
    settings = _run(tmp_path, backbone={"kind": "pretrained", "path": str(embedder)})
    assert CliRunner().invoke(app, ["train", str(settings)]).exit_code == 0
    [pooling] = (tmp_path / "runs" / "run" / "checkpoints").glob("step-000001/1_Pooling/config.json")
    _change(pooling, pooling_mode="lasttoken")
    said = _refused("evaluate", tmp_path / "runs" / "run", "--steps", "1", "-t", beir, "-o", tmp_path / "out")
    assert "step-000001: the files differ" in said
    said = _refused("train", settings, "--resume", "readout.pooling=last")
    assert "the run there had other settings (readout.pooling)" in said
