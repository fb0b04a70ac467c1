"""BM25 against its formula, and its floors on real data."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from reasoning_embedding import config
from reasoning_embedding.data.beir import RetrievalData, read_beir
from reasoning_embedding.data.mining.bm25 import BM25, tokens
from reasoning_embedding.evaluation.encoder import model_meta
from reasoning_embedding.evaluation.floors.bm25 import BM25Search
from reasoning_embedding.evaluation.run import evaluate
from reasoning_embedding.evaluation.tasks.retrieval import LocalRetrieval

CORPUS = {"d1": "red cat", "d2": "red dog runs", "d3": "a cat, a CAT and a cat", "d4": "..."}


def search(query: str, corpus: dict[str, str] = CORPUS, k1: float = 0.9, b: float = 0.4) -> dict[str, float]:
    queries = {"q": query}
    task = LocalRetrieval("tiny", RetrievalData(corpus, queries, {"q": {"d1": 1}}))
    split = task.dataset["default"]["test"]
    model = BM25Search(BM25(k1, b), model_meta("bm25", BM25(k1, b).revision))
    model.index(split["corpus"])
    return model.search(split["queries"], top_k=3)["q"]


def test_tokens_are_runs_of_letters_and_digits() -> None:
    assert tokens("The CAT's x_2, 3.5 é") == ["the", "cat", "s", "x", "2", "3", "5"]


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.5, 0.75)])
def test_scores_follow_the_formula(k1: float, b: float) -> None:
    found = search("red cat", k1=k1, b=b)
    lengths = {name: len(tokens(text)) for name, text in CORPUS.items()}
    mean = sum(lengths.values()) / len(lengths)
    idf = math.log(1 + (4 - 2 + 0.5) / (2 + 0.5))  # both words lie in two of four documents

    def term(frequency: int, name: str) -> float:
        return idf * frequency / (frequency + k1 * (1 - b + b * lengths[name] / mean))

    expected = {"d1": 2 * term(1, "d1"), "d2": term(1, "d2"), "d3": term(3, "d3")}
    assert found == pytest.approx(expected, rel=1e-5)


def test_what_shares_no_token_is_not_found() -> None:
    assert search("moon") == {}
    assert search("?!") == {}
    assert search("red", corpus={"d1": "...", "d2": "?"}) == {}


@pytest.mark.parametrize(
    ("task", "ndcg_at_10"),
    [
        ("cranfield", 0.480),
        ("cisi", 0.318),
        ("theoremqa_theorems", 0.475),
        ("cosqa_dev", 0.341),
        ("xquad_en", 0.959),
    ],
)
def test_floors_of_real_data(real_data: Path, tmp_path: Path, task: str, ndcg_at_10: float) -> None:
    tasks = [config.BeirTask(kind="beir", path=str(real_data / "derived" / "beir" / task))]
    scores = evaluate(
        BM25(),
        config.Evaluation(tasks=tasks),
        tmp_path,
        model_name="bm25",
        revision=BM25().revision,
        step=None,
    )
    [entry] = scores["tasks"]
    assert entry["main_score"] == pytest.approx(ndcg_at_10, abs=5.1e-4)
    assert entry["instruction"] == "", "BM25 is not asked with an instruction"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "published"), [("rarb_arc", 0.0590), ("rarb_alphanli", 0.3692), ("cosqa_dev", 0.3410)]
)
def test_published_floors_lie_where_the_order_of_ties_can_put_them(
    real_data: Path, name: str, published: float
) -> None:
    """Short texts tie, and no order of ties is the right one: the best and the worst bound what can be reported."""
    data = read_beir(real_data / "derived" / "beir" / name)
    split = LocalRetrieval(name, data).dataset["default"]["test"]
    model = BM25Search(BM25(), model_meta("bm25", BM25().revision))
    model.index(split["corpus"])
    bounds = np.zeros(2)
    for query, scores in model.search(split["queries"], top_k=len(data.corpus)).items():
        [right] = data.qrels[query]
        if right in scores:
            values = np.array(list(scores.values()))
            ranks = np.array([(values >= scores[right]).sum(), (values > scores[right]).sum() + 1])
            bounds += np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0) / len(data.queries)
    worst, best = bounds
    assert worst - 5e-5 <= published <= best + 5e-5
    assert best - worst < 0.009
