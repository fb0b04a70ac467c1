"""Evaluation on several ranks: the scores of one, written once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasoning_embedding import config
from reasoning_embedding.distributed import World, broadcast_object
from reasoning_embedding.distributed.harness import run_ranks
from reasoning_embedding.evaluation.run import evaluate
from reasoning_embedding.evaluation.sharding import ShardedEncoder, broadcast_array
from tests.encoders import HashingEncoder
from tests.factories import write_beir

WORDS = "red blue cat dog bird fish fox tree city king queen moon".split()
CORPUS = {f"d{i}": f"the {WORDS[i % 12]} sees {' '.join(WORDS[: i % 7])}" for i in range(30)}
QUERIES = {f"q{i}": f"where is the {WORDS[i]}" for i in range(6)}
QRELS = {f"q{i}": {f"d{i}": 2, f"d{i + 12}": 1} for i in range(6)}


def _evaluate(
    world: World, encoder: Any, folder: Path, task: config.BeirTask
) -> tuple[dict[str, Any], int, int]:
    settings = config.Evaluation(tasks=[task], chunk_documents=11)
    lines: list[str] = []
    scores = evaluate(
        encoder,
        settings,
        folder if world.is_main else folder / "not here",
        model_name="test",
        revision="a" * 12,
        step=None,
        world=world,
        report=lines.append,
    )
    return scores, sum(len(texts) for _, texts in getattr(encoder, "calls", [])), len(lines)


def _task(folder: Path) -> config.BeirTask:
    path = write_beir(folder / "data" / "words", CORPUS, QUERIES, QRELS, instruction="find")
    return config.BeirTask(kind="beir", path=str(path))


def _scores(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in found["tasks"]]


def test_two_ranks_score_as_one_and_one_writes(tmp_path: Path) -> None:
    task = _task(tmp_path)
    alone, texts, _ = _evaluate(World(), HashingEncoder(), tmp_path / "one", task)
    assert texts == 36
    ranks = run_ranks(2, _evaluate, HashingEncoder(), tmp_path / "two", task)
    for found, _, _ in ranks:
        assert _scores(found) == _scores(alone)
    assert ranks[0][0] == ranks[1][0]
    encoded = [count for _, count, _ in ranks]
    assert sum(encoded) == 36
    assert min(encoded) >= 12, "each takes its share"
    assert ranks[0][2] > 0 == ranks[1][2], "the main rank alone speaks"
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        "scores.json",
        "mteb",
        "per_query",
        "embeddings",
    }
    again = run_ranks(2, _evaluate, HashingEncoder(), tmp_path / "two", task)
    assert [count for _, count, _ in again] == [0, 0]
    assert again[1][0] == ranks[0][0]
    (tmp_path / "two" / "scores.json").unlink()
    third = run_ranks(2, _evaluate, HashingEncoder(), tmp_path / "two", task)
    assert sum(count for _, count, _ in third) == 6, "documents come from the main rank's disk"
    assert _scores(third[1][0]) == _scores(alone)


def test_an_embedder_scores_alike_on_two_ranks(tiny_backbone: Path, tmp_path: Path) -> None:
    from reasoning_embedding.backbones import Embedder, load_decoder

    task = _task(tmp_path)
    embedder = Embedder(*load_decoder(str(tiny_backbone), bidirectional=True))
    alone, _, _ = _evaluate(World(), embedder, tmp_path / "one", task)
    for found, _, _ in run_ranks(2, _evaluate, embedder, tmp_path / "two", task):
        for entry, wanted in zip(found["tasks"], alone["tasks"], strict=True):
            assert entry["ndcg_at_10"] == pytest.approx(wanted["ndcg_at_10"], abs=1e-5)


class _FailsOnOne(HashingEncoder):
    """Fails where the longest text is dealt: on one rank."""

    def encode(self, texts: Sequence[str], **kwargs: Any) -> np.ndarray:
        if any(len(text) > 1000 for text in texts):
            raise RuntimeError("out of memory")
        return super().encode(texts, **kwargs)


def test_a_rank_that_fails_fails_the_task_on_all(tmp_path: Path) -> None:
    path = write_beir(tmp_path / "long", {**CORPUS, "x": "long " * 300}, QUERIES, QRELS)
    task = config.BeirTask(kind="beir", path=str(path))
    for found, _, _ in run_ranks(2, _evaluate, _FailsOnOne(), tmp_path / "out", task):
        assert found["tasks"] == []
        [failed] = found["failed"]
        assert "out of memory" in failed["error"] or "failed to encode its share" in failed["error"]


def test_fewer_texts_than_ranks() -> None:
    def few(world: World) -> np.ndarray:
        return ShardedEncoder(HashingEncoder(), world).encode(["one text"])

    for found in run_ranks(3, few):
        np.testing.assert_array_equal(found, HashingEncoder().encode(["one text"]))


def test_what_the_main_rank_has_all_get() -> None:
    def share(world: World) -> tuple[Any, Any, Any]:
        array = np.full((2, 3), world.rank + 1, np.float32)
        return (
            broadcast_object({"rank": world.rank}, world),
            broadcast_array(array, world),
            broadcast_array(None if world.is_main else array, world),
        )

    for value, array, nothing in run_ranks(2, share):
        assert value == {"rank": 0}
        assert array.tolist() == [[1, 1, 1], [1, 1, 1]]
        assert nothing is None


def test_an_experiments_evaluation_scores_alike_on_two_ranks(tiny_backbone: Path, tmp_path: Path) -> None:
    from reasoning_embedding.backbones import Embedder, load_decoder
    from reasoning_embedding.checkpoints import ExperimentFolder
    from reasoning_embedding.checkpoints.embedder import save_checkpoint
    from reasoning_embedding.experiments.scoring import evaluate_runs

    experiment = config.ExperimentConfig.model_validate(
        {
            "kind": "experiment",
            "name": "e",
            "recipe": {"data": {"sources": [{"kind": "world"}]}},
            "runs": [{"name": "a", "backbone": {"kind": "pretrained", "path": str(tiny_backbone)}}],
            "evaluation": {"tasks": [_task(tmp_path).model_dump()], "baselines": ["bm25", "untrained"]},
        }
    )
    assert experiment.evaluation is not None
    embedder = Embedder(*load_decoder(str(tiny_backbone), bidirectional=True))
    found = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        place = ExperimentFolder(folder)
        save_checkpoint(place.run("a").checkpoint(0), embedder, max_tokens=64, parent=None)
        arguments = (experiment, experiment.evaluation, place, lambda line: None)
        if folder.name == "one":
            evaluate_runs(*arguments, World())
        else:
            run_ranks(2, lambda world, given: evaluate_runs(*given, world), arguments)
        files = {path.relative_to(folder): path for path in folder.rglob("scores.json")}
        assert len(files) == 3
        found.append({name: json.loads(path.read_text())["tasks"] for name, path in files.items()})
    for name, [entry] in found[0].items():
        assert found[1][name][0]["ndcg_at_10"] == pytest.approx(entry["ndcg_at_10"], abs=1e-5)
