"""Ranks agree on the best step: the main rank's scores count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.distributed import World
from reasoning_embedding.distributed.harness import run_ranks
from reasoning_embedding.errors import TrainingError
from reasoning_embedding.training.selection import Selection
from tests.models import tiny_embedder


def _score(embedder: Embedder, step: int, world: World) -> dict[str, float]:
    """Rank 0 rises until step 2 and falls; rank 1 only falls."""
    return {"task": {0: 0.1, 1: 0.3, 2: 0.5, 3: 0.2}[step] if world.is_main else -step}


def _run(world: World, folder: Path, select: str, embedder: Embedder) -> list[bool]:
    settings = config.TrainingEvaluation.model_validate(
        {"tasks": [{"kind": "world"}], "every": 1, "select": select}
    )
    selection = Selection(settings, _score, RunFolder(folder), world, steps=3, report=lambda _: None)
    selection.begin(embedder)
    best = []
    embedder.train()
    for step in (1, 2, 3):
        best.append(selection.score(embedder, step)[1])
        assert embedder.training
    selection.write()
    return best


def test_ranks_agree_on_the_best_step(tmp_path: Path) -> None:
    assert run_ranks(2, _run, tmp_path, "task", tiny_embedder()) == [[True, True, False]] * 2
    best = json.loads((tmp_path / "best.json").read_text())
    assert {key: best[key] for key in ("step", "score", "select")} == {
        "step": 2,
        "score": 0.5,
        "select": "task",
    }


def test_every_rank_refuses_an_unknown_score(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no score is named 'other'"):
        run_ranks(2, _run, tmp_path, "other", tiny_embedder())
