"""An embedder of others adapted to one's own pairs: before, after, and halfway back, as docs/adapting.md has it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasoning_embedding.checkpoints.embedder import load_embedder
from tests.conftest import REPOSITORY
from tests.factories import read_lines, write_beir
from tests.library_models import PROMPTS, write_library_model

Write = Callable[..., Path]
Rembed = Callable[..., Any]


@pytest.mark.slow
def test_before_after_and_halfway_back(write_run: Write, rembed: Rembed, rows: Path, tmp_path: Path) -> None:
    start = write_library_model(tmp_path / "published", pooling="last", end_token=True, padding_side="left")
    records = read_lines(rows)
    own = write_beir(
        tmp_path / "own",
        {f"d{i}": row["pos"][0] for i, row in enumerate(records)},
        {f"q{i}": row["query"][1] for i, row in enumerate(records)},
        {f"q{i}": {f"d{i}": 1} for i in range(len(records))},
    )
    general = tmp_path / "general.csv"
    pairs = [(row["query"][1], row["neg"][0], i % 5) for i, row in enumerate(records)]
    general.write_text("".join(f"{a},{b},{score}\n" for a, b, score in pairs))
    tasks = ["-t", own, "-t", general]

    rembed("evaluate", start, *tasks, "-o", tmp_path / "before")
    before = json.loads((tmp_path / "before" / "scores.json").read_text())
    lora = {"backbone": {"kind": "pretrained", "path": str(start)}}
    said = rembed("train", write_run("adapted", lora, lora={"rank": 8}, learning_rate=1e-2)).output
    assert "causal, last token" in " ".join(said.split())
    run = tmp_path / "runs" / "adapted"
    rembed("evaluate", "--compare", f"{run}@first", f"{run}@last", *tasks, "-o", tmp_path / "forgotten")
    table = json.loads((tmp_path / "forgotten" / "comparison.json").read_text())["tasks"]
    assert [task["task"] for task in table] == ["own", "general", "mean over tasks"]
    assert table[0]["b"] > table[0]["a"], "it learnt its own task"
    for task, entry in zip(table, before["tasks"], strict=False):
        assert task["a"] == pytest.approx(entry["main_score"], abs=1e-4), "step 0 is the published embedder"

    example = (REPOSITORY / "configs" / "merges" / "toward-start.yaml").read_text()
    (tmp_path / "back.yaml").write_text(example.replace("runs/quickstart/runs/base", str(run)))
    named = [{"kind": "beir", "path": str(own)}, {"kind": "sts", "path": str(general)}]
    changes = [f"evaluation.tasks={json.dumps(named)}", f"output_dir={tmp_path / 'merges'}"]
    rembed("merge", tmp_path / "back.yaml", *changes, "path.t=[0.0, 0.5, 1.0]", "path.beside=[]")
    merge = tmp_path / "merges" / "toward-start"
    points = {
        point["name"]: point["scores"] for point in json.loads((merge / "merge.json").read_text())["points"]
    }
    for task in table[:2]:
        for end, side in (("slerp-0", "a"), ("slerp-1", "b")):
            assert points[end][task["task"]]["main_score"] == pytest.approx(task[side], abs=1e-4)
        assert 0 <= abs(points["slerp-0.5"][task["task"]]["main_score"]) <= 1
    halfway = load_embedder(merge / "models" / "slerp-0.5")
    ends = [load_embedder(run / "checkpoints" / step) for step in ("step-000000", "step-000006")]
    assert halfway.readout == ends[1].readout
    assert halfway.prompts.items() >= PROMPTS.items()
    vectors = [model.encode([records[0]["query"][1]])[0] for model in (*ends, halfway)]
    apart = float(vectors[0] @ vectors[1])
    assert min(float(vectors[2] @ vectors[0]), float(vectors[2] @ vectors[1])) > apart, "it lies between both"
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
