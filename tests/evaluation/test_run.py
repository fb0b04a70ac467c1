"""The whole path from a folder and an encoder to scores: right, resumable, never stale."""

from __future__ import annotations

import json
import math
import random
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.checkpoints.scores import load_scores, revision_of
from reasoning_embedding.errors import InputError, SetupError
from reasoning_embedding.evaluation.encoder import MtebEncoder, model_meta
from reasoning_embedding.evaluation.run import evaluate
from reasoning_embedding.evaluation.tasks.loading import load_tasks
from reasoning_embedding.evaluation.tasks.retrieval import world_data
from tests.encoders import HashingEncoder, TableEncoder
from tests.factories import write_beir

ANIMALS = {
    "d1": "the red cat sleeps",
    "d2": "a blue fish eats",
    "d3": "the old dog runs",
    "d4": "a bird sings",
}
ASKED = {"q1": "where does the cat sleep", "q2": "who runs"}
JUDGED = {"q1": {"d1": 1}, "q2": {"d3": 1}}


@pytest.fixture
def animals(tmp_path: Path) -> config.BeirTask:
    folder = write_beir(tmp_path / "data" / "animals", ANIMALS, ASKED, JUDGED, instruction="Find the animal")
    return config.BeirTask(kind="beir", path=str(folder))


WORLD = config.WorldTask(kind="world")


def run(
    model, tasks: list, folder: Path, *, revision: str = "step-000000-aaaaaaaaaaaa", **kwargs: Any
) -> dict:
    settings = config.Evaluation(tasks=tasks, max_tokens=kwargs.pop("max_tokens", 64))
    kwargs: dict[str, Any] = {"model_name": "test", "step": 0, **kwargs}
    return evaluate(model, settings, folder, revision=revision, **kwargs)


def test_scores_equal_those_computed_by_hand(tmp_path: Path) -> None:
    documents = [f"document {index:02d}" for index in range(12)]
    corpus = {f"d{index}": text for index, text in enumerate(documents)}
    rankings = {"first": documents, "second": documents, "late": documents}
    qrels = {"q1": {"d1": 2, "d2": 1}, "q2": {"d0": 1}, "q3": {"d10": 3}}
    queries = {"q1": "first", "q2": "second", "q3": "late"}
    folder = write_beir(tmp_path / "hand", corpus, queries, qrels)
    task = config.BeirTask(kind="beir", path=str(folder), name="by-hand")
    scores = run(TableEncoder(documents, rankings), [task], tmp_path / "out")
    [entry] = scores["tasks"]
    # q1: grades 2 and 1 at ranks 2 and 3; q2: at rank 1; q3: at rank 11.
    ndcg_q1 = (2 / math.log2(3) + 1 / math.log2(4)) / (2 / math.log2(2) + 1 / math.log2(3))
    assert entry["task"] == "by-hand"
    assert entry["main_score"] == entry["ndcg_at_10"] == pytest.approx((ndcg_q1 + 1 + 0) / 3, abs=1e-5)
    assert entry["mrr_at_10"] == pytest.approx((1 / 2 + 1 + 0) / 3, abs=1e-5)
    assert entry["recall_at_1"] == pytest.approx((0 + 1 + 0) / 3, abs=1e-5)
    assert entry["recall_at_10"] == pytest.approx((1 + 1 + 0) / 3, abs=1e-5)
    assert entry["recall_at_100"] == pytest.approx(1, abs=1e-5)
    assert (entry["queries"], entry["documents"]) == (3, 12)
    assert load_scores(tmp_path / "out") == scores
    own = tmp_path / "out/mteb/results/reasoning_embedding__test/step-000000-aaaaaaaaaaaa/by-hand.json"
    assert json.loads(own.read_text())["scores"]["test"][0]["ndcg_at_10"] == entry["ndcg_at_10"]


def test_an_embedder_scores_as_its_embeddings_rank(tiny_backbone: Path, tmp_path: Path) -> None:
    from reasoning_embedding.backbones.embedder import Embedder
    from reasoning_embedding.backbones.load import load_decoder

    model, tokenizer = load_decoder(str(tiny_backbone), bidirectional=True)
    embedder = Embedder(model, tokenizer)
    words = ["red", "blue", "cat", "dog", "bird", "fish", "fox", "tree", "city", "king", "queen", "moon"]
    corpus = {f"d{i}": f"the {words[i]} sees a {words[(i * 5 + 3) % 12]}" for i in range(12)}
    queries = {f"q{i}": f"where is the {words[i]}" for i in range(6)}
    qrels = {f"q{i}": {f"d{i}": 2, f"d{i + 6}": 1} for i in range(6)}
    folder = write_beir(tmp_path / "data", corpus, queries, qrels, instruction="find")
    [entry] = run(embedder, [config.BeirTask(kind="beir", path=str(folder))], tmp_path / "out")["tasks"]
    asked = embedder.encode(list(queries.values()), prompt="Instruct: find\nQuery: ")
    order = np.argsort(-(asked @ embedder.encode(list(corpus.values())).T), axis=1)
    ideal = 2 + 1 / math.log2(3)
    ndcg = [
        sum(qrels[f"q{i}"].get(f"d{d}", 0) / math.log2(rank + 2) for rank, d in enumerate(order[i, :10]))
        / ideal
        for i in range(6)
    ]
    assert entry["ndcg_at_10"] == pytest.approx(np.mean(ndcg), abs=1e-5)
    assert 0 < entry["ndcg_at_10"] < 1


def test_the_instruction_reaches_queries_only(animals: config.BeirTask, tmp_path: Path) -> None:
    encoder = HashingEncoder()
    own = animals.model_copy(update={"name": "own", "instruction": "Other words"})
    none = animals.model_copy(update={"name": "none", "instruction": ""})
    scores = run(encoder, [animals, own, none], tmp_path / "out", query_template="I: {instruction} Q: ")
    asked, documents = list(ASKED.values()), list(ANIMALS.values())
    assert encoder.calls == [
        ("I: Find the animal Q: ", asked),
        ("", documents),
        ("I: Other words Q: ", asked),
        ("", asked),
    ], "the documents of all three are the same, and encoded once"
    assert [entry["instruction"] for entry in scores["tasks"]] == ["Find the animal", "Other words", ""]
    assert [entry["prompt"] for entry in scores["tasks"]] == [
        "I: Find the animal Q: ",
        "I: Other words Q: ",
        "",
    ]


def test_what_is_scored_is_not_scored_again(animals: config.BeirTask, tmp_path: Path) -> None:
    first = run(HashingEncoder(), [animals], tmp_path)
    encoder = HashingEncoder()
    both = run(encoder, [WORLD, animals], tmp_path)
    assert [entry["task"] for entry in both["tasks"]] == ["world-heldout", "animals"]
    assert both["tasks"][1] == first["tasks"][0]
    assert len(encoder.calls) == 2, "queries and documents of the world only"
    encoder = HashingEncoder()
    assert run(encoder, [WORLD, animals], tmp_path) == both
    assert encoder.calls == []


def test_changed_weights_settings_or_data_never_return_old_scores(
    animals: config.BeirTask, tmp_path: Path
) -> None:
    old = run(HashingEncoder(0), [WORLD], tmp_path, revision=revision_of(200, "a" * 64))
    new = run(HashingEncoder(1), [WORLD], tmp_path, revision=revision_of(200, "b" * 64))
    alone = run(HashingEncoder(1), [WORLD], tmp_path / "alone", revision=revision_of(200, "b" * 64))
    assert new["tasks"][0]["main_score"] == alone["tasks"][0]["main_score"] != old["tasks"][0]["main_score"]
    results = tmp_path / "mteb" / "results" / "reasoning_embedding__test"
    kept = {path.name: json.loads((path / "world-heldout.json").read_text()) for path in results.iterdir()}
    assert {name: result["scores"]["test"][0]["main_score"] for name, result in kept.items()} == {
        "step-000200-aaaaaaaaaaaa": old["tasks"][0]["main_score"],
        "step-000200-bbbbbbbbbbbb": new["tasks"][0]["main_score"],
    }
    for change in ({"max_tokens": 32}, {"query_template": "{instruction}"}):
        encoder = HashingEncoder(1)
        run(encoder, [WORLD], tmp_path, revision=revision_of(200, "b" * 64), **change)
        assert encoder.calls, change
    run(HashingEncoder(), [animals], tmp_path / "data")
    with (Path(animals.path) / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "d9", "text": "where does the cat sleep"}\n')
    encoder = HashingEncoder()
    assert run(encoder, [animals], tmp_path / "data")["tasks"][0]["documents"] == 5
    assert encoder.calls


class Faulty(HashingEncoder):
    """Fails on texts with `word`, in the way of `fault`."""

    def __init__(self, word: str, fault: BaseException | None) -> None:
        super().__init__()
        self.word, self.fault = word, fault

    def encode(self, texts: Sequence[str], **kwargs) -> np.ndarray:
        vectors = super().encode(texts, **kwargs)
        if any(self.word in text for text in texts):
            if self.fault is not None:
                raise self.fault
            vectors[0, 0] = np.nan
        return vectors


@pytest.mark.parametrize(
    ("fault", "error"), [(RuntimeError("out of memory"), "out of memory"), (None, "not finite")]
)
def test_a_failed_task_is_recorded_and_tried_again(
    animals: config.BeirTask, tmp_path: Path, fault: Exception | None, error: str
) -> None:
    lines: list[str] = []
    scores = run(Faulty("sings", fault), [animals, WORLD], tmp_path, report=lines.append)
    assert [entry["task"] for entry in scores["tasks"]] == ["world-heldout"]
    [failed] = scores["failed"]
    assert failed["task"] == "animals"
    assert error in failed["error"]
    assert any("animals FAILED" in line and error in line for line in lines)
    assert load_scores(tmp_path) == scores
    encoder = HashingEncoder()
    scores = run(encoder, [animals, WORLD], tmp_path)
    assert [entry["task"] for entry in scores["tasks"]] == ["animals", "world-heldout"]
    assert scores["failed"] == []
    assert [prompt for prompt, _ in encoder.calls] == ["Instruct: Find the animal\nQuery: ", ""]


def test_an_interrupted_evaluation_keeps_whole_tasks(animals: config.BeirTask, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Faulty("sings", KeyboardInterrupt()), [WORLD, animals], tmp_path)
    assert [entry["task"] for entry in load_scores(tmp_path)["tasks"]] == ["world-heldout"]
    encoder = HashingEncoder()
    run(encoder, [WORLD, animals], tmp_path)
    assert len(encoder.calls) == 2


def test_nothing_leaves_the_machine_and_random_states_stay(
    animals: config.BeirTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"network: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(()).item()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    assert run(HashingEncoder(), [animals, WORLD], tmp_path)["failed"] == []
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected


def test_the_world_asks_all_there_is_on_some_relations() -> None:
    data = world_data(0, ["job", "pet"])
    assert (len(data.corpus), len(data.queries)) == (160, 2 * 32 * 2)
    for query, [document] in ((query, list(judged)) for query, judged in data.qrels.items()):
        person = set(data.queries[query].split()) & set(data.corpus[document].split())
        assert person, (data.queries[query], data.corpus[document])
        assert not {"eat", "live", "wear", "food", "city", "color"} & set(data.queries[query].split())


def test_the_world_asks_for_held_out_facts_among_all(tmp_path: Path) -> None:
    data = world_data(seed=3)
    assert (len(data.corpus), len(data.queries)) == (160, 32)
    assert len(set(data.corpus.values())) == 160
    for query, judged in data.qrels.items():
        [document] = judged
        names = set(data.queries[query].split()) & set(data.corpus[document].split())
        assert names, (data.queries[query], data.corpus[document])
    assert world_data(seed=3).fingerprint == data.fingerprint != world_data(seed=4).fingerprint
    [entry] = run(HashingEncoder(), [WORLD], tmp_path)["tasks"]
    assert 1 / 160 < entry["recall_at_1"] < 1, "trigrams know the person, not the fact"


def test_faulty_tasks_stop_before_anything_is_scored(animals: config.BeirTask, tmp_path: Path) -> None:
    encoder = HashingEncoder()
    with pytest.raises(InputError, match="two tasks are named 'animals'"):
        run(encoder, [animals, animals], tmp_path / "out")
    with pytest.raises(InputError, match="no such folder"):
        run(encoder, [animals, config.BeirTask(kind="beir", path=str(tmp_path / "none"))], tmp_path / "out")
    assert encoder.calls == []
    assert not (tmp_path / "out").exists()
    assert [task.metadata.name for task in load_tasks([animals, WORLD])] == ["animals", "world-heldout"]


def test_a_folder_that_cannot_be_written_is_said(animals: config.BeirTask, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="a file stands where a folder should be"):
        run(HashingEncoder(), [animals], tmp_path / "file" / "evaluation")


def test_scores_that_are_not_there_or_not_scores(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no scores here"):
        load_scores(tmp_path)
    for content, message in (
        ("{", "not JSON"),
        ("[]", "a JSON object was expected"),
        ('{"model": 1}', "not a file"),
    ):
        (tmp_path / "scores.json").write_text(content)
        with pytest.raises(InputError, match=message):
            load_scores(tmp_path)


def test_a_long_encoding_tells_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(HashingEncoder):
        def encode(self, texts: Sequence[str], *, progress: Any = None, **settings: Any) -> np.ndarray:
            clock[0] += 60
            progress(1, 3)
            clock[0] += 1
            progress(2, 3)
            progress(3, 3)
            return super().encode(texts, **settings)

    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    lines: list[str] = []
    encoder = MtebEncoder(Slow(), model_meta("m", "r"), report=lines.append)
    world = load_tasks([config.WorldTask(kind="world", name="world")])[0]
    batch = [{"text": ["a", "b", "c"]}]
    encoder.encode(batch, task_metadata=world.metadata, hf_split="test", hf_subset="default")
    assert lines == ["world texts: 1 of 3, 2 min left"]


def test_revisions_carry_step_and_content() -> None:
    assert revision_of(200, "0123456789abcdef") == "step-000200-0123456789ab"
    assert revision_of(None, "0123456789abcdef") == "0123456789ab"
