"""Every verb that takes a model takes a step of a run."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import Result

from reasoning_embedding.checkpoints import RunFolder
from tests.end_to_end.conftest import WORDS


def test_steps_of_a_run_in_every_verb(
    write_run: Callable[..., Path],
    rembed: Callable[..., Result],
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rembed("train", write_run())
    run = RunFolder(tmp_path / "runs" / "run")
    monkeypatch.chdir(tmp_path)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"{one} {other}" for one, other in itertools.pairwise(WORDS)))

    vectors = {}
    for name in ("runs/run@3", "run:run@3", str(run.checkpoint(3)), "runs/run@last"):
        rembed("embed", name, texts, "-o", "vectors.npy")
        vectors[name] = np.load("vectors.npy")
    np.testing.assert_array_equal(vectors["runs/run@3"], vectors[str(run.checkpoint(3))])
    np.testing.assert_array_equal(vectors["run:run@3"], vectors[str(run.checkpoint(3))])
    assert np.abs(vectors["runs/run@last"] - vectors["runs/run@3"]).max() > 1e-4

    rembed("analyze", "runs/run@first", "run:run@last", "--probe", texts, "-o", "pair.json")
    sides = json.loads(Path("pair.json").read_text())
    assert [sides[side]["path"] for side in "ab"] == [
        f"runs/run/checkpoints/step-00000{step}" for step in (0, 6)
    ]

    rembed("track", "runs/run@0", "runs/run@last", "--probe", texts, "-o", "track.parquet")
    assert set(pq.read_table("track.parquet")["step"].to_pylist()) == {0, 6}

    mined = ("data", "mine", rows, "-o", "mined.jsonl", "--ranks", "1-3", "-k", 1, "--model", "runs/run@3")
    rembed(*mined)
    assert len(Path("mined.jsonl").read_text().splitlines()) == 40

    for verb in (
        ("embed", texts, "-o", "none.npy"),
        ("publish", "--repo", "lab/tiny"),
        ("evaluate", "-t", rows),
    ):
        said = rembed(verb[0], "runs/run@5", *verb[1:], code=2).output
        assert "'runs/run@5' names no checkpoint" in said
        assert "steps there: [0, 3, 6]" in said
    assert "is a run, not a model" in rembed("embed", "runs/run", texts, "-o", "none.npy", code=2).output
    assert "one step" in rembed("publish", "runs/run@3", "--step", "3", "--repo", "lab/tiny", code=2).output


def test_one_step_is_evaluated(
    write_run: Callable[..., Path], rembed: Callable[..., Result], tmp_path: Path, beir: Path
) -> None:
    rembed("train", write_run())
    run = RunFolder(tmp_path / "runs" / "run")
    rembed("evaluate", f"{run.path}@3", "--task", beir)
    scores = json.loads((run.evaluation / "step-000003" / "scores.json").read_text())
    assert (scores["model"], scores["step"]) == ("run", 3)
    assert [folder.name for folder in run.evaluation.iterdir()] == ["step-000003"]
