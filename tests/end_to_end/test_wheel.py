"""The wheel alone, in an empty folder: a CSV of pairs and twenty lines of Python give the command line's weights."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.factories import write_tiny_backbone

pytestmark = pytest.mark.slow  # builds the wheel, an environment, and trains in three fresh processes

PAIRS = "query,pos\n" + "".join(
    f"find the {colour} {animal},the {colour} {animal} runs in the city\n"
    for colour in ("red", "green", "blue", "old")
    for animal in ("cat", "dog", "bird", "fish")
)
PROGRAM = """\
import csv

import reasoning_embedding as rembed

with open("pairs.csv", newline="") as file:
    rows = list(csv.DictReader(file))
settings = {
    "name": "python",
    "backbone": {"kind": "pretrained", "path": "base"},
    "data": {"query_max_tokens": 16, "document_max_tokens": 16},
    "training": {"batch_size": 8, "steps": 6, "learning_rate": 1e-3},
}
run = rembed.train(settings, rows=rows)
model = run.load()
found = model.similarity(model.encode("red cat"), model.encode(["the red cat", "an old fish"]))
print(rembed.__file__)
print(run.checkpoint() / "model.safetensors")
print(found.shape)
"""
CONFIG = """\
kind: run
name: cli
backbone: {kind: pretrained, path: base}
data: {sources: [{kind: files, path: pairs.csv}], query_max_tokens: 16, document_max_tokens: 16}
training: {batch_size: 8, steps: 6, learning_rate: 1.0e-3}
"""
WEIGHTS = "checkpoints/step-000006/model.safetensors"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; its dependencies are those of this one, the source tree is not there."""
    home = tmp_path_factory.mktemp("wheel")
    venv.create(home / "env", with_pip=True)
    python = home / "env" / "bin" / "python"
    run(home, python, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", "built", ROOT)
    [wheel] = (home / "built").glob("reasoning_embedding-*.whl")
    run(home, python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    [packages] = (home / "env" / "lib").glob("python*/site-packages")
    # Folders that a .pth file names are searched, but .pth files in them, as of an editable install, are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "env"


def run(folder: Path, *words: object) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in words], cwd=folder, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_python_and_the_command_line_give_the_same_weights(environment: Path, tmp_path: Path) -> None:
    assert len([line for line in PROGRAM.splitlines() if line]) <= 20
    write_tiny_backbone(tmp_path / "base")
    (tmp_path / "pairs.csv").write_text(PAIRS)
    (tmp_path / "run.yaml").write_text(CONFIG)
    (tmp_path / "program.py").write_text(PROGRAM)
    module, weights, shape = run(tmp_path, environment / "bin" / "python", "program.py").splitlines()
    assert Path(module).is_relative_to(environment)
    assert not Path(module).is_relative_to(ROOT)
    assert shape == "(1, 2)"
    told = run(tmp_path, environment / "bin" / "rembed", "train", "run.yaml")
    assert "run folder: runs/cli" in told
    python, cli = tmp_path / weights, tmp_path / "runs" / "cli" / WEIGHTS
    assert python.samefile(tmp_path / "runs" / "python" / WEIGHTS)
    assert python.read_bytes() == cli.read_bytes()
    untrained = cli.parents[1] / "step-000000" / "model.safetensors"
    assert untrained.read_bytes() != cli.read_bytes()
    other = run(tmp_path, environment / "bin" / "rembed", "train", "run.yaml", "name=seeded", "seed=1")
    assert "run folder: runs/seeded" in other
    assert (tmp_path / "runs" / "seeded" / WEIGHTS).read_bytes() != cli.read_bytes()
