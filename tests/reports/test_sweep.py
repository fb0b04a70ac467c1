"""The page of a sweep: places of lines, the best, seeds together, and everything escaped."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from scipy import stats

from reasoning_embedding import config
from reasoning_embedding.checkpoints.scores import write_best
from reasoning_embedding.files import read_json, write_json
from reasoning_embedding.reports import build, summary_table
from reasoning_embedding.reports.pages.sweep import coordinates, point_table
from reasoning_embedding.reports.reading import read_sweep
from reasoning_embedding.reports.records import half_width
from reasoning_embedding.sweeps.ledger import SweepLedger

VALUES = {(1e-4, 0): 0.50, (1e-4, 1): 0.54, (1e-3, 0): 0.60, (1e-3, 1): 0.70, (1e-2, 0): 0.66}
SWEEP = """\
kind: sweep
name: s
title: "<script>alert(1)</script>"
metric: evaluation.task.a
base:
  name: tiny
  backbone: {kind: pretrained, path: some/base}
  data: {sources: [{kind: files, path: rows.jsonl}]}
  training: {steps: 4}
grid:
  training.learning_rate: [1e-4, 1e-3, 1e-2]
  seed: [0, 1]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep of six runs: five finished with invented scores, one failed."""
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    loaded = config.load_config(path)
    runs = config.sweep_runs(loaded)
    ledger = SweepLedger(tmp_path / "s")
    ledger.write(loaded.config, runs, SWEEP)
    for run in runs:
        value = VALUES.get((run.point["training.learning_rate"], run.point["seed"]))
        if value is None:
            ledger.record(run.name, "failed", "out of <memory>\n  -> less")
            continue
        home = ledger.folder.run(run.name)
        home.checkpoint(4).mkdir(parents=True)
        home.manifest.write_text(json.dumps({"steps": 4}))
        lines = [{"step": 2, "loss": 1.0, "evaluation": {"task.a": 0.1}}, {"step": 3, "loss": 1.0}]
        lines.append({"step": 4, "loss": 0.5, "evaluation": {"task.a": value}})
        home.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 5, "lo')
    return ledger.folder.path


def test_a_best_step_before_training_is_a_warning(folder: Path) -> None:
    assert "before training" not in build(folder, lambda _: None).read_text()
    [first, *others] = [
        outcome.run.name for outcome in read_sweep(folder).outcomes if outcome.state == "finished"
    ]
    for name, step in ((first, 0), (others[0], 4)):
        write_best(SweepLedger(folder).folder.run(name), step, 0.7, "mean")
    words = f"the best step of 1 of 6 runs is 0, the model before training: {first}."
    assert words in build(folder, lambda _: None).read_text()
    assert words in summary_table(folder)


def test_seeds_stand_together_with_their_interval(folder: Path) -> None:
    record = read_sweep(folder)
    assert not record.less_is_better
    assert [(group.point["training.learning_rate"], len(group.values)) for group in record.points] == [
        (1e-2, 1), (1e-3, 2), (1e-4, 2)
    ]  # fmt: skip
    assert [round(group.mean, 6) for group in record.points] == [0.66, 0.65, 0.52]
    low, high = stats.t.interval(0.95, 1, loc=0.65, scale=stats.sem([0.6, 0.7]))
    assert record.points[1].half_width == pytest.approx((high - low) / 2)
    assert record.points[0].half_width is None, "one seed has no interval"
    assert half_width([1.0, 1.0, 1.0]) == 0
    rows = point_table(record).rows
    assert [cell.text for cell in rows[2]] == ["0.0001", "2", "0.5200", "\N{MINUS SIGN}0.1600"], (
        "over seed 0 alone"
    )


def test_less_is_better_turns_the_order(folder: Path) -> None:
    path = folder / "config.resolved.json"
    write_json(path, read_json(path) | {"goal": "min"}, summed=True)
    record = read_sweep(folder)
    assert [value for _, value in record.measured] == sorted(VALUES.values())


def test_lines_stand_where_their_values_are(folder: Path) -> None:
    chart = coordinates(read_sweep(folder))
    assert [axis.label for axis in chart.axes] == ["training.learning_rate", "seed", "evaluation.task.a"]
    assert [text for _, text in chart.axes[0].ticks] == ["0.0001", "0.001", "0.01"]
    places = {line.texts[2]: line.places for line in chart.lines}
    assert [round(y, 9) for y in places["0.7"]] == [0.5, 1.0, 1.0], "rates by their logarithm"
    assert chart.lines[-1].texts[2] == "0.7", "the best is drawn last"
    assert all(0 <= y <= 1 and math.isfinite(y) for line in chart.lines for y in line.places)


def test_the_page_needs_nothing_else_and_escapes_what_it_shows(folder: Path) -> None:
    page = build(folder)
    text = page.read_text()
    assert "<script>alert(1)" not in text
    assert "out of &lt;memory&gt;" in text
    assert "0.7000 with training.learning_rate = 0.001, seed = 1" in text
    body = text.split("</main>")[0]
    assert not re.search(r"""(src|href)=["']?https?:""", body)
    assert body.count("<polyline") == 5
    assert "<title>tiny-" in body
    assert "<script" not in text
    table = (page.parent / "table.md").read_text()
    assert table.count("\n| tiny-") == 6
    assert "0.6600" in summary_table(folder)


def test_a_sweep_without_a_finished_run(folder: Path) -> None:
    for run in read_sweep(folder).outcomes:
        for file in (folder / "runs" / run.run.name).glob("manifest.json"):
            file.unlink()
    assert "No run is finished" in build(folder).read_text()
    assert summary_table(folder) == "No run is finished and measured yet."
