"""BRIGHT from a folder laid out like the original: excluded documents, long documents, faults."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

from reasoning_embedding import config
from reasoning_embedding.data.mining.bm25 import BM25
from reasoning_embedding.errors import InputError
from reasoning_embedding.evaluation.asking import Asking
from reasoning_embedding.evaluation.encoder import MtebEncoder, model_meta
from reasoning_embedding.evaluation.floors.bm25 import BM25Search
from reasoning_embedding.evaluation.tasks.bright import read_bright
from reasoning_embedding.evaluation.tasks.loading import load_tasks
from reasoning_embedding.evaluation.tasks.retrieval import LocalRetrieval

WORDS = ["cell", "gene", "leaf", "bone", "virus", "fungus", "nerve", "blood"]
DOCUMENTS = [{"id": f"web/{word}.txt", "content": f"about the {word}"} for word in WORDS]
LONG = [{"id": f"page/{word}", "content": f"a page on {word} and {word}"} for word in WORDS[:3]]
#: The post that a question was taken from resembles it most, and is excluded.
POSTS = [{"id": f"post/{i}", "content": f"{word} {word} how"} for i, word in enumerate(WORDS[:2])]
EXAMPLES = [
    {
        "id": str(i),
        "query": f"{word} {word} how",
        "reasoning": "",
        "excluded_ids": [f"post/{i}"] if i < 2 else ["N/A"],
        "gold_ids": [f"web/{word}.txt"],
        "gold_ids_long": [f"page/{word}"],
        "gold_answer": "",
    }
    for i, word in enumerate(WORDS[:3])
]


def write(folder: Path, kind: str, rows: list[dict[str, Any]], ending: str = ".jsonl") -> None:
    (folder / kind).mkdir(parents=True, exist_ok=True)
    if ending == ".jsonl":
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / kind / "biology.jsonl").write_text(lines, encoding="utf-8")
        return
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        path = folder / kind / f"biology-0000{number}-of-00002.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(part), path)


@pytest.fixture(params=[".jsonl", ".parquet"])
def bright(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for kind, rows in (
        ("examples", EXAMPLES),
        ("documents", [*DOCUMENTS, *POSTS]),
        ("long_documents", LONG),
    ):
        write(tmp_path, kind, rows, request.param)
    return tmp_path


class Counts:
    """Texts as counts of the words there are."""

    dimension = 64

    def __init__(self) -> None:
        self.prompts: set[str] = set()
        self._places: dict[str, int] = {}

    def encode(self, texts: Sequence[str], *, prompt: str = "", **_: Any) -> np.ndarray:
        self.prompts.add(prompt)
        rows = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.split():
                row[self._places.setdefault(word, len(self._places))] += 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def score(task: Any, model: Any) -> dict[str, float]:
    return task.evaluate(model, "test", encode_kwargs={"batch_size": 4, "show_progress_bar": False})[
        "default"
    ]


def entry(folder: Path, **more: Any) -> config.BrightTask:
    return config.BrightTask(kind="bright", path=str(folder), subject="biology", **more)


def models() -> list[Any]:
    return [
        MtebEncoder(Counts(), model_meta("counts", "1")),
        BM25Search(BM25(), model_meta("bm25", "1")),
    ]


def test_excluded_documents_are_not_given(bright: Path) -> None:
    [task] = load_tasks([entry(bright)])
    assert task.metadata.name == "bright-biology"
    for model in models():
        found = score(task, model)
        assert found["ndcg_at_1"] == 1
        assert found["recall_at_100"] == 1
    kept = LocalRetrieval("kept", task.data)
    assert score(kept, models()[0])["ndcg_at_1"] == pytest.approx(1 / 3, abs=1e-4), "posts stand first"


def test_scores_are_those_of_ranking_all_but_the_excluded_as_mteb_does(bright: Path) -> None:
    examples = [
        row | {"gold_ids": [*row["gold_ids"], f"web/{word}.txt"]}
        for row, word in zip(EXAMPLES, WORDS[3:], strict=False)
    ]
    examples[2]["gold_ids"] = examples[2]["gold_ids"][1:]
    examples[2]["excluded_ids"] = [row["id"] for row in DOCUMENTS[:3]] + ["a page that is not here"]
    for path in (bright / "examples").iterdir():
        path.unlink()
    write(bright, "examples", examples)
    [task] = load_tasks([entry(bright)])
    corpus = list(task.data.corpus)
    ranked = {
        query: [name for name in corpus if name not in task.excluded[query]] for query in task.data.queries
    }
    by_mteb = LocalRetrieval("by_mteb", task.data)
    split = by_mteb.dataset["default"]["test"]
    by_mteb.dataset["default"]["test"] = RetrievalSplitData(**{**split, "top_ranked": ranked})
    for model in models():
        ours, theirs = score(task, model), score(by_mteb, model)
        assert 0 < ours["ndcg_at_10"] < 1
        for metric in ("ndcg_at_1", "ndcg_at_10", "map_at_100", "recall_at_5", "mrr_at_10"):
            assert ours[metric] == theirs[metric], metric


def test_long_documents_have_their_own_judgements(bright: Path) -> None:
    [task] = load_tasks([entry(bright, long=True)])
    assert task.metadata.name == "bright-biology-long"
    assert task.data.qrels == {str(i): {f"page/{word}": 1} for i, word in enumerate(WORDS[:3])}
    assert score(task, models()[0])["ndcg_at_10"] == 1


def test_queries_are_asked_as_mteb_asks_them(bright: Path) -> None:
    prompt = "Represent this biology post for searching relevant passages: "
    for more, expected in (({}, prompt), ({"instruction": "Find"}, "Find"), ({"instruction": ""}, None)):
        [task] = load_tasks([entry(bright, **more)])
        assert task.data.instruction == expected
        embedder = Counts()
        score(task, MtebEncoder(embedder, model_meta("counts", "1"), asking=Asking(template="{instruction}")))
        assert embedder.prompts == {"", expected or ""}


def test_data_and_exclusions_decide_the_fingerprint(bright: Path) -> None:
    [task] = load_tasks([entry(bright)])
    for path in (bright / "examples").iterdir():
        path.unlink()
    write(bright, "examples", [row | {"excluded_ids": ["N/A"]} for row in EXAMPLES])
    [other] = load_tasks([entry(bright)])
    assert task.data.fingerprint == other.data.fingerprint
    assert task.metadata.revision != other.metadata.revision


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gold_ids": ["web/none.txt"]}, "'web/none.txt' of query '0' is not in documents"),
        ({"gold_ids": []}, "query '0' has no gold_ids"),
        ({"gold_ids": "web/cell.txt"}, "'gold_ids' is missing or not a list"),
        ({"excluded_ids": ["web/cell.txt"]}, "both right and excluded"),
        ({"query": ""}, "'query' is missing"),
        ({"id": "1"}, "query '1' occurs twice"),
    ],
)
def test_faulty_examples_are_said(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    write(tmp_path, "documents", [*DOCUMENTS, *POSTS])
    write(tmp_path, "examples", [EXAMPLES[0] | change, *EXAMPLES[1:]])
    with pytest.raises(InputError, match=said) as caught:
        read_bright(tmp_path, "biology")
    assert "biology.jsonl:" in str(caught.value)


def test_faulty_folders_are_said(bright: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file of subject 'biologie'; did you mean 'biology'"):
        read_bright(bright, "biologie")
    with pytest.raises(InputError, match="no folder 'documents'"):
        read_bright(bright / "examples", "biology")
    for path in (bright / "documents").iterdir():
        path.unlink()
    write(tmp_path, "documents", [*DOCUMENTS, DOCUMENTS[0]])
    with pytest.raises(InputError, match=r"document 'web/cell\.txt' occurs twice"):
        read_bright(bright, "biology")
    (bright / "documents" / "biology.jsonl").unlink()
    (bright / "documents" / "biology-00000-of-00001.parquet").write_bytes(b"PAR1, or not")
    with pytest.raises(InputError, match="cannot read the parquet file"):
        read_bright(bright, "biology")
