"""The script of what a reader explores, run by Node on a page: selectors work and the note says the files' numbers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from reasoning_embedding.reports.pages.experiment import build_experiment
from tests.synthetic_experiment import write_experiment

BROWSER = Path(__file__).with_name("little_browser.js")
HOSTILE = '</script><script>alert("x")</script>'


@pytest.fixture
def folder(tmp_path: Path, no_drawing: None) -> Path:
    folder = write_experiment(tmp_path / "synthetic", title=HOSTILE)
    build_experiment(folder, lambda _: None)
    return folder


def explored(folder: Path) -> dict[str, Any]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node on this machine")
    command = [node, str(BROWSER), str(folder / "report" / "index.html")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_every_choice_is_drawn_and_the_note_says_the_number(folder: Path) -> None:
    told = explored(folder)
    assert told["charts"] == ["explorer", "heatmaps"]
    assert told["drawnAtOnce"] >= 2
    assert told["choices"] > 40
    assert told["drawn"] >= told["choices"]
    assert told["everyPointHasBothPlaces"]
    assert told["titles"][:3] == ["layers at step 32", None, "steps at layer 2"]
    pair = told["notes"]["pair"]
    assert pair.startswith("Linear CKA, layer norm: 0.4790 [0.4670, 0.4880], row shuffle 0.3100.")
    assert "Against the seed band [0.9550, 0.9760]: less alike than the seeds." in pair
    assert "Definition: Linear CKA of centred rows. run:base@last against run:sft@last." in pair
    record = json.loads((folder / "hrsa" / "realignment" / "rlvr.json").read_text())
    value = record["series_layers"]["cka"][record["steps"].index(32)][record["layers"].index("layer 2")]
    assert told["notes"]["track"].startswith(f"Linear CKA, step 32, layer 2: {value:.4f}, row shuffle")
