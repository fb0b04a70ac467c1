"""Texts of evaluation tasks, whatever their kind, and their comparison with training data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from reasoning_embedding import config
from reasoning_embedding.data import load_table
from reasoning_embedding.errors import InputError
from reasoning_embedding.evaluation.tasks.texts import encoded_texts, task_texts
from reasoning_embedding.experiments.contamination import compare_tasks, scored_tasks
from tests.factories import run_config


def _tasks(*tasks: dict[str, Any]) -> list[config.Task]:
    return config.Evaluation.model_validate({"tasks": list(tasks)}).tasks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    own = tmp_path / "own"
    own.mkdir()
    (own / "corpus.jsonl").write_text(
        '{"_id": "d0", "title": "Cats", "text": "sit on mats"}\n{"_id": "d1", "text": "a dog"}\n'
    )
    (own / "queries.jsonl").write_text(
        '{"_id": "q0", "text": "who sits"}\n{"_id": "q1", "text": "what runs"}\n'
    )
    (own / "qrels.tsv").write_text("q0\td0\t1\nq1\td1\t1\n")
    (tmp_path / "pairs.csv").write_text('a cat,"one, cat",4\na dog,a fish,0\n')
    (tmp_path / "train.csv").write_text("text,label\nhello there,0\nbye now,1\n")
    (tmp_path / "test.csv").write_text("text,label\nhello again,0\nbye bye,1\n")
    return tmp_path


def test_every_kind_of_local_task(folder: Path) -> None:
    tasks = _tasks(
        {"kind": "beir", "path": str(folder / "own")},
        {"kind": "sts", "path": str(folder / "pairs.csv")},
        {
            "kind": "classification",
            "name": "greetings",
            "train": str(folder / "train.csv"),
            "test": str(folder / "test.csv"),
        },
        {"kind": "world"},
        {"kind": "number-sequences"},
    )
    found = dict(task_texts(tasks))
    assert found["own"] == {"queries": ["who sits", "what runs"], "documents": ["Cats sit on mats", "a dog"]}
    assert sorted(found["pairs"]["texts"]) == ["a cat", "a dog", "a fish", "one, cat"]  # type: ignore[index]
    assert found["greetings"] == {
        "probe texts": ["hello there", "bye now"],
        "texts": ["hello again", "bye bye"],
    }
    world = found["world-heldout"]
    assert {kind: len(texts) for kind, texts in world.items()} == {"queries": 32, "documents": 160}  # type: ignore[union-attr]
    assert len(found) == 4


class Task:
    """What `encoded_texts` looks at in a task of mteb."""

    data_loaded = True
    eval_splits = ("test",)
    hf_subsets = ("default", "en")

    def __init__(self, dataset: dict, **fields) -> None:
        self.dataset = dataset
        self.__dict__.update(fields)


def test_texts_of_pairs_classes_and_retrieval() -> None:
    pairs = Dataset.from_dict(
        {"one": ["a", "b"], "two": ["c", "d"], "genre": ["x", "x"], "score": [1.0, 2.0]}
    )
    assert sorted(encoded_texts(Task({"test": pairs, "train": pairs}, column_names=("one", "two")))) == list(
        "abcd"
    )
    rows = Dataset.from_dict({"text": ["e"], "label_text": ["no"]})
    split = {"en": {"train": rows, "test": rows, "validation": rows}}
    assert list(encoded_texts(Task(split, input_column_name="text", train_split="train"))) == ["e", "e"]
    retrieval = {
        "corpus": Dataset.from_dict({"id": ["d1"], "title": ["T"], "text": ["f"]}),
        "queries": Dataset.from_dict({"id": ["q1"], "text": ["g"]}),
        "relevant_docs": {"q1": {"d1": 1}},
        "top_ranked": None,
    }
    assert sorted(encoded_texts(Task({"default": {"test": retrieval}}))) == ["T", "f", "g"]
    clusters = Dataset.from_dict({"sentences": [["h", "i"], ["j"]], "labels": [[0, 1], [1]]})
    assert list(encoded_texts(Task({"test": clusters}, input_column_name="sentences"))) == list("hij")


def test_a_suite_that_is_not_here_says_why() -> None:
    [(name, reason)] = task_texts(_tasks({"kind": "mteb", "name": "Banking77Classification"}))
    assert name == "Banking77Classification"
    assert isinstance(reason, str)
    assert "not on this machine" in reason


def test_a_faulty_folder_is_an_error(folder: Path) -> None:
    (folder / "own" / "qrels.tsv").unlink()
    with pytest.raises(InputError, match=r"qrels\.tsv"):
        list(task_texts(_tasks({"kind": "beir", "path": str(folder / "own")})))


def _table(folder: Path) -> Any:
    rows = folder / "rows.jsonl"
    rows.write_text('{"query": "Who SITS?", "pos": ["cats: sit on mats"], "source": "planted"}\n')
    return load_table(config.Data.model_validate({"sources": [{"kind": "files", "path": str(rows)}]}))


def test_what_is_found_is_said_and_written(folder: Path) -> None:
    said: list[str] = []
    tasks = _tasks(
        {"kind": "beir", "path": str(folder / "own")}, {"kind": "mteb", "name": "Banking77Classification"}
    )
    compare_tasks(_table(folder), tasks, folder / "contamination.json", said.append)
    assert (
        said[0] == "contamination of own: 1 exact and 0 near of 2 queries; 1 exact and 0 near of 2 documents"
    )
    assert said[1].startswith("contamination of Banking77Classification: not checked, ")
    found = json.loads((folder / "contamination.json").read_text())
    assert found["tasks"]["own"]["documents"]["sources"] == {"planted": 1}
    assert list(found["unchecked"]) == ["Banking77Classification"]


def test_a_run_without_tasks_has_nothing_to_compare() -> None:
    assert scored_tasks(run_config()) == []


def test_tasks_of_both_sections_count_once() -> None:
    own = {"kind": "world"}
    experiment = config.ExperimentConfig.model_validate(
        {
            "kind": "experiment",
            "name": "e",
            "recipe": {
                "data": {"sources": [own]},
                "evaluation": {"tasks": [own, {"kind": "beir", "path": "x"}]},
            },
            "runs": [{"name": "a", "backbone": {"kind": "pretrained", "path": "x"}}],
            "evaluation": {"tasks": [own, {"kind": "world", "name": "other", "seed": 1}]},
        }
    )
    assert [getattr(task, "path", None) or task.name for task in scored_tasks(experiment)] == [
        "world-heldout",
        "other",
        "x",
    ]  # fmt: skip
