"""What the version before wrote is read by this one: a stopped run, an experiment, a merge and their configurations.

``before/`` holds it, and in ``before/expected/`` what that version printed of it, its vectors, and the weights at which
the run ended where nothing had stopped it. ``python -m tests.goldens.test_before --write`` writes the printed texts
anew; the rest stays what it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.checkpoints.embedder import load_embedder
from reasoning_embedding.cli.main import app

BEFORE = Path(__file__).with_name("before")
EXPECTED = BEFORE / "expected"
TEXTS = ["red cat dog", "the moon sees a small river", "king"]
#: Folders whose vectors are kept: a step of the stopped run, and a merge.
MODELS = {"stopped run": "runs/run/checkpoints/step-000005", "soup": "merges/soup/models/linear"}
#: A processor without vector instructions ends 6e-7 from the weights of one with AVX-512, whose run moved them by
#: 5e-3, and its vectors are 1e-7 away.
WEIGHTS, VECTORS = 5e-6, 2e-6
PAIR = "experiments/pair"
#: What is printed, by the file that holds it. ``report`` comes first, as it finishes the folder; the default table is
#: the last one, as each is also written.
PRINTED: dict[str, tuple[str, ...]] = {
    "report.txt": ("report", PAIR),
    "scores-margin.txt": ("report", PAIR, "--table", "--base", "other-backbone", "--margin", "2"),
    "scores.txt": ("report", PAIR, "--table"),
    "report-run.txt": ("report", f"{PAIR}/runs/base-s0"),
    "runs-ls.txt": ("runs", "ls", "."),
    "runs-show-experiment.txt": ("runs", "show", PAIR),
    "runs-show-run.txt": ("runs", "show", f"{PAIR}/runs/other-s1"),
    "runs-show-stopped.txt": ("runs", "show", "runs/run"),
    "runs-diff.txt": ("runs", "diff", f"{PAIR}/runs/base-s0", f"{PAIR}/runs/other-s1", "--paired"),
    "runs-lineage.txt": ("runs", "lineage", "runs/run"),
    "runs-lineage-soup.txt": ("runs", "lineage", MODELS["soup"]),
}
#: Written into the experiment's ``report/``.
WRITTEN = ("table.md", "scores.md", "scores.tex", "scores.csv")


def rembed(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, f"exit {result.exit_code}\n{result.output}\n{result.exception!r}"
    return result


@contextlib.contextmanager
def copied(folder: Path) -> Generator[None]:
    """Work in a copy that was last written to long ago, on a terminal of 110 columns."""
    shutil.copytree(BEFORE, folder, dirs_exist_ok=True)
    shutil.rmtree(folder / "expected")
    for path in folder.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "110"
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)


@pytest.fixture
def before(tmp_path: Path) -> Generator[Path]:
    with copied(tmp_path):
        yield tmp_path


def printed() -> dict[str, str]:
    """Every text of :data:`PRINTED` and :data:`WRITTEN`, by file; this folder's own path left out."""
    texts = {}
    for name, words in PRINTED.items():
        texts[name] = rembed(*words).output.replace(str(Path.cwd().resolve()), ".")
    return texts | {name: (Path(PAIR) / "report" / name).read_text(encoding="utf-8") for name in WRITTEN}


@pytest.mark.parametrize(
    ("name", "kind"), [("run.yaml", "run"), ("experiment.yaml", "experiment"), ("merge.yaml", "merge")]
)
def test_its_configurations_are_valid(before: Path, name: str, kind: str) -> None:
    assert rembed("config", "check", name).output == f"{name}: ok ({kind})\n"


@pytest.mark.parametrize(
    "path",
    [
        "runs/run/config.yaml",
        "runs/run/config.resolved.json",
        f"{PAIR}/config.yaml",
        f"{PAIR}/config.resolved.json",
        f"{PAIR}/runs/base-s0/config.resolved.json",
        # Not its resolved form: that spells out a decay that the check refuses beside equal weights.
        "merges/soup/config.yaml",
    ],
)
def test_the_configurations_in_its_folders_are_valid(before: Path, path: str) -> None:
    rembed("config", "check", path)


def weights(run: str, step: int) -> dict[str, torch.Tensor]:
    return load_file(RunFolder(Path(run)).checkpoint(step) / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_its_stopped_run_goes_on_to_the_weights_of_one_that_nothing_stopped(before: Path) -> None:
    stopped = RunFolder(Path("runs/run"))
    assert (stopped.steps(), stopped.state_steps()) == ([0, 3, 5], [5])
    first = stopped.metrics.read_text()
    said = rembed("train", "run.yaml", "--resume").output
    assert "begun with training.final_learning_rate = 0.0, loss.mask_same_text = false" in said
    assert "of an older version and has no sums: it is taken as it is" in said
    rembed(
        "train", "run.yaml", "output_dir=whole", "training.final_learning_rate=0", "loss.mask_same_text=false"
    )
    assert stopped.steps() == [0, 3, 5, 6, 9, 10]
    assert stopped.metrics.read_text().startswith(first)

    ended, whole = weights("runs/run", 10), weights("whole/run", 10)
    if same(weights("runs/run", 3), weights("whole/run", 3)):  # else another processor rounds otherwise
        assert same(ended, whole)
    recorded = load_file(EXPECTED / "run-step-000010.safetensors")
    for found in (ended, whole):
        assert found.keys() == recorded.keys()
        for name, tensor in recorded.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=WEIGHTS)
    logs = [Path(run, "metrics.jsonl").read_text().splitlines() for run in ("runs/run", "whole/run")]
    lines = [[json.loads(line) for line in log] for log in logs]
    for key in ("step", "loss", "accuracy", "temperature", "learning_rate", "grad_norm", "source", "tokens"):
        resumed, one = ([line[key] for line in log] for log in lines)
        assert resumed == (one if isinstance(one[0], str) else pytest.approx(one, rel=2e-5)), key


def test_what_is_printed_of_its_experiment_is_what_was_printed(before: Path) -> None:
    for name, text in printed().items():
        assert text == (EXPECTED / name).read_text(encoding="utf-8"), name
    for form, suffix in (("markdown", "md"), ("latex", "tex"), ("csv", "csv")):
        wanted = (EXPECTED / f"scores.{suffix}").read_text(encoding="utf-8")
        assert rembed("report", PAIR, "--table", "--format", form).stdout == wanted + "\n"


@pytest.mark.parametrize("model", MODELS)
def test_its_models_give_their_vectors(before: Path, model: str) -> None:
    recorded = json.loads((EXPECTED / "vectors.json").read_text())[model]
    stock = SentenceTransformer(MODELS[model], device="cpu")
    theirs = {"plain": stock.encode(TEXTS), "query": stock.encode(TEXTS, prompt_name="query")}
    for found in (vectors(MODELS[model]), theirs):
        for kind in ("plain", "query"):
            np.testing.assert_allclose(found[kind], recorded[kind], rtol=0, atol=VECTORS)
    assert np.abs(np.subtract(recorded["plain"], recorded["query"])).max() > 1e-3


def vectors(folder: str) -> dict[str, Any]:
    embedder = load_embedder(folder)
    return {
        "plain": embedder.encode(TEXTS),
        "query": embedder.encode(TEXTS, prompt=embedder.prompts["query"]),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place, copied(Path(place)):
        for file, content in printed().items():
            if "--write" in sys.argv:
                (EXPECTED / file).write_text(content, encoding="utf-8")
            elif content != (EXPECTED / file).read_text(encoding="utf-8"):
                print(f"{file} differs")
