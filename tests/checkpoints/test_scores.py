"""One store of scores: those of evaluated checkpoints, or else those a run took of its live model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reasoning_embedding.checkpoints import RunFolder, content_hash
from reasoning_embedding.checkpoints.references import resolve
from reasoning_embedding.checkpoints.scores import (
    WHILE_TRAINING,
    evaluated_scores,
    load_scores,
    mean_scores,
    read_best,
    revision_of,
    scores_by_step,
    scores_of_checkpoint,
    scores_while_training,
    write_best,
)
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import write_json
from tests.publishing.published_run import write_checkpoint

LIVE: dict[int, dict[str, float]] = {
    0: {"a": 0.1, "b": 0.3, "mean": 0.2},
    3: {"a": 0.4},  # b failed
    6: {"a": 0.5, "b": 0.7, "mean": 0.6, "b:recall_at_1": 0.9},
}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with checkpoints 0 and 6 that was scored at 0, 3 and 6 while it trained, killed amid a line."""
    run = RunFolder(tmp_path / "run")
    for step in (0, 6):
        write_checkpoint(run.checkpoint(step), step=step)
    lines = [{"step": step, "loss": 1.0, "evaluation": scores} for step, scores in LIVE.items()]
    lines[1:1] = [{"step": 6, "evaluation": {"a": 0.9}}, {"step": 4, "loss": 1.0}]  # trained anew from step 0
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 7, "eval')
    return run


def _evaluate(run: RunFolder, step: int, **changes: Any) -> None:
    record = {
        "model": "m",
        "revision": revision_of(step, content_hash(run.checkpoint(step))),
        "step": step,
        "tasks": [{"task": "c", "main_score": 0.25}],
        "failed": [],
        **changes,
    }
    write_json(run.evaluation / f"step-{step:06d}" / "scores.json", record)


def _main(scores: dict[int, dict[str, Any]]) -> dict[int, dict[str, float]]:
    return {
        step: {entry["task"]: entry["main_score"] for entry in record["tasks"]}
        for step, record in scores.items()
    }


def test_a_run_scored_while_it_trained_has_scores(run: RunFolder) -> None:
    assert scores_while_training(run) == LIVE
    scores = scores_by_step(run)
    assert _main(scores) == {0: {"a": 0.1, "b": 0.3}, 3: {"a": 0.4}, 6: {"a": 0.5, "b": 0.7}}
    assert all(entry[WHILE_TRAINING] for record in scores.values() for entry in record["tasks"])
    assert [entry["task"] for entry in scores[3]["failed"]] == ["b"]
    assert mean_scores(scores[3]["tasks"], scores[3]["failed"])["by_task"] is None
    assert mean_scores(scores[6]["tasks"], scores[6]["failed"])["by_task"] == pytest.approx(0.6)
    assert evaluated_scores(run) == {}


def test_evaluated_checkpoints_are_not_mixed_with_the_live_model(run: RunFolder) -> None:
    _evaluate(run, 6)
    write_json(run.evaluation / "bm25" / "scores.json", {"tasks": []})
    (run.evaluation / "step-000003").mkdir()  # being scored
    assert _main(scores_by_step(run)) == {6: {"c": 0.25}}
    assert scores_by_step(run) == evaluated_scores(run)


def test_scores_belong_to_their_weights(run: RunFolder) -> None:
    assert scores_of_checkpoint(run, run.checkpoint(6)) == scores_by_step(run)[6]
    (run.checkpoint(6) / "model.safetensors").write_bytes(b"others")
    assert scores_of_checkpoint(run, run.checkpoint(6)) is None
    _evaluate(run, 6)
    assert scores_of_checkpoint(run, run.checkpoint(6)) == load_scores(run.evaluation / "step-000006")
    assert scores_of_checkpoint(run, run.checkpoint(0)) is None
    (run.checkpoint(6) / "model.safetensors").write_bytes(b"and others")
    assert scores_of_checkpoint(run, run.checkpoint(6)) is None


def test_a_run_without_scores(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert scores_by_step(run) == scores_while_training(run) == {}
    assert read_best(run) is None


def test_files_of_older_runs_are_read_and_damaged_ones_named(run: RunFolder) -> None:
    file = run.evaluation / "step-000006" / "scores.json"
    write_json(file, {"tasks": [{"task": "c", "main_score": 0.5}]})
    assert _main(scores_by_step(run)) == {6: {"c": 0.5}}
    assert scores_of_checkpoint(run, run.checkpoint(6)) is None  # it does not say what it was taken of
    for content in ('{"tasks": [{"main_score": 0.5}]}', "{", '{"tasks": 1}'):
        file.write_text(content)
        with pytest.raises(InputError, match=r"scores\.json"):
            scores_by_step(run)


def test_the_best_step(run: RunFolder) -> None:
    write_best(run, 6, 0.6, "mean")
    assert read_best(run) == {"step": 6, "score": 0.6, "select": "mean"}
    assert resolve(f"{run.path}@best").step == 6
    for content in ("{", "{}", "[]", '{"step": "6"}'):
        run.best.write_text(content)
        with pytest.raises(InputError, match=r"best\.json"):
            read_best(run)
