"""Two models on the same queries: differences, wins and losses, texts, and how sure the mean is."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import write_json
from reasoning_embedding.reports.side_by_side import side_by_side, to_terminal, write_comparison

RNG = np.random.default_rng(0)
BEFORE = np.round(RNG.uniform(0, 1, 60), 5)
#: The second model gains on most queries of its own task and loses a little on the general one.
AFTER = {"own": np.clip(BEFORE + RNG.normal(0.2, 0.1, 60), 0, 1), "general": np.clip(BEFORE - 0.05, 0, 1)}


def _write(folder: Path, tasks: dict[str, np.ndarray], **changes: Any) -> Path:
    entries = [
        {"task": task, "main_metric": "ndcg_at_10", "main_score": float(values.mean()), "fingerprint": "1"}
        for task, values in tasks.items()
    ]
    settings = {"prompts_from": "the model's own", "max_tokens": 64}
    record = {
        "model": "m",
        "revision": "r",
        "step": None,
        "tasks": entries,
        "failed": [],
        "settings": settings,
    }
    write_json(folder / "scores.json", record | changes)
    for task, values in tasks.items():
        single = {f"q{index}": float(value) for index, value in enumerate(values)}
        write_json(folder / "per_query" / f"{task}.json", {"metric": "ndcg_at_10", "scores": single})
    return folder


def test_gains_and_losses_with_their_interval(tmp_path: Path) -> None:
    before = _write(tmp_path / "before", {"own": BEFORE, "general": BEFORE, "alone": BEFORE})
    after = _write(tmp_path / "after", AFTER)
    texts = {"own": {f"q{index}": f"text {index}" for index in range(60)}}
    found = side_by_side(("before", "after"), (before, after), texts)
    own, general, mean = found.tasks
    assert [task.task for task in found.tasks] == ["own", "general", "mean over tasks"]
    differences = AFTER["own"] - BEFORE
    assert own.difference == pytest.approx(differences.mean())
    assert own.counts == (
        (differences > 1e-5).sum(),
        (abs(differences) <= 1e-5).sum(),
        (differences < -1e-5).sum(),
    )
    best = own.queries[0]
    assert (best.difference, best.text) == (
        pytest.approx(differences.max()),
        f"text {differences.argmax()}",
    )
    # Paired over queries: the spread of the differences, not that of the scores.
    low, high = own.interval or (0, 0)
    width = 2 * 1.96 * differences.std() / np.sqrt(60)
    assert high - low == pytest.approx(width, rel=0.15)
    assert low < own.difference < high
    unpaired = 2 * 1.96 * np.sqrt((BEFORE.var() + AFTER["own"].var()) / 60)
    assert high - low < unpaired / 2
    # Tasks of the same queries are drawn together.
    draws = [values - BEFORE for values in AFTER.values()]
    assert mean.difference == pytest.approx(np.mean(draws))
    width = 2 * 1.96 * np.mean(draws, axis=0).std() / np.sqrt(60)
    assert (mean.interval or (0, 0))[1] - (mean.interval or (0, 0))[0] == pytest.approx(width, rel=0.15)
    assert general.difference < 0
    assert found.missing == ("alone: only before has a score",)
    assert [task.interval for task in side_by_side(("b", "a"), (before, after)).tasks] == [
        task.interval for task in found.tasks
    ]

    shown = to_terminal(found, 110)
    assert f"text {differences.argmax()}" in shown
    assert "alone: only before has a score" in shown
    record, table = write_comparison(tmp_path / "out", found)
    tasks = json.loads(record.read_text())["tasks"]
    assert tasks[0]["wins"] == own.counts[0]
    assert tasks[0]["interval"] == [low, high]
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 120
    assert rows[0] == {
        "task": "own",
        "query": best.query,
        "a": str(best.a),
        "b": str(best.b),
        "difference": str(best.difference),
        "text": best.text,
    }


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    a = _write(tmp_path / "a", {"few": BEFORE[:5], "whole": BEFORE, "other": BEFORE})
    b = _write(tmp_path / "b", {"few": BEFORE[:5] / 2, "whole": BEFORE / 2, "other": BEFORE})
    (b / "per_query" / "whole.json").unlink()
    record = json.loads((b / "scores.json").read_text())
    record["tasks"][2]["fingerprint"] = "2"
    write_json(b / "scores.json", record)
    found = side_by_side(("a", "b"), (a, b))
    few, whole, mean = found.tasks
    assert few.reason == "only 5 queries: the interval is too short"
    assert (whole.reason, whole.interval, whole.counts) == ("no scores of single queries", None, (0, 0, 0))
    assert mean.interval is None
    assert found.missing == ("other: the two were scored on different data",)
    empty = _write(tmp_path / "empty", {})
    with pytest.raises(InputError, match="no task was scored with both models"):
        side_by_side(("a", "empty"), (a, empty))
    with pytest.raises(InputError, match="no scores here"):
        side_by_side(("a", "none"), (a, tmp_path / "none"))
