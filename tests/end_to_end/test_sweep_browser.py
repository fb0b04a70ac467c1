"""The page of a sweep in a real browser: lines drawn, nothing blocked, nothing on the console."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reasoning_embedding import config
from reasoning_embedding.files import write_json
from reasoning_embedding.reports import build
from reasoning_embedding.sweeps.ledger import SweepLedger
from tests.end_to_end.test_report_browser import NAMES, render

SWEEPS = Path(__file__).resolve().parents[2] / "configs" / "sweeps"


def test_a_line_a_run_is_drawn(tmp_path: Path) -> None:
    browser = next((path for name in NAMES if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    loaded = config.load_config(SWEEPS / "learning-rate.yaml", ['title="<img src=x onerror=alert(1)>"'])
    runs, ledger = config.sweep_runs(loaded), SweepLedger(tmp_path / "sweep")
    ledger.write(loaded.config, runs, None)
    for index, run in enumerate(runs):
        folder = ledger.folder.run(run.name)
        folder.checkpoint(100).mkdir(parents=True)
        write_json(folder.manifest, {"steps": 100})
        write_json(folder.best, {"step": 100, "score": index / 100})
    dom, console = render(browser, build(ledger.folder.path), tmp_path / "profile")
    assert console == []
    assert "This page hit an error" not in dom.split("<main>")[0]
    assert dom.count("<polyline ") == len(runs)
    assert "training.learning_rate</text>" in dom
    assert "<img src" not in dom
