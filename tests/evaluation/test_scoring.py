"""Any type of task through the engine: its scores, what is kept beside them, and what decides a rerun."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy

from reasoning_embedding import config
from reasoning_embedding.data.beir import RetrievalData
from reasoning_embedding.data.mining.bm25 import BM25
from reasoning_embedding.errors import InputError
from reasoning_embedding.evaluation.asking import Asking
from reasoning_embedding.evaluation.encoder import MtebEncoder, model_meta
from reasoning_embedding.evaluation.floors.bm25 import BM25Search
from reasoning_embedding.evaluation.floors.tfidf import TfIdf
from reasoning_embedding.evaluation.run import evaluate
from reasoning_embedding.evaluation.scoring import identity, query_metric, score_task
from reasoning_embedding.evaluation.tasks.local import local_metadata
from reasoning_embedding.evaluation.tasks.retrieval import LocalRetrieval
from tests.encoders import HashingEncoder, TableEncoder
from tests.factories import write_beir

WORDS = ["red", "blue", "cat", "dog", "bird", "fish", "fox", "tree", "city", "king", "queen", "moon"]
CORPUS = {f"d{i}": f"the {WORDS[i]} sees a {WORDS[(i * 5 + 3) % 12]}" for i in range(12)}
QUERIES = {f"q{i}": f"where is the {WORDS[i]}" for i in range(6)}
QRELS = {f"q{i}": {f"d{i}": 2, f"d{(i * 7 + 6) % 12}": 1} for i in range(6)}


def run(model: Any, tasks: list, folder: Path, settings: dict | None = None, **kwargs: Any) -> dict:
    values = config.Evaluation(tasks=tasks, **(settings or {}))
    known: dict[str, Any] = {"model_name": "test", "revision": "a" * 12, "step": None, **kwargs}
    return evaluate(model, values, folder, **known)


def words_task(folder: Path) -> config.BeirTask:
    path = write_beir(folder / "words", CORPUS, QUERIES, QRELS, instruction="find")
    return config.BeirTask(kind="beir", path=str(path))


def local_tasks(folder: Path) -> list:
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [
        ("a red cat", "the red cat", 5.0),
        ("a blue fish", "an old dog", 0.5),
        ("the moon", "moons", 4.0),
    ]
    (folder / "pairs.tsv").write_text("".join(f"{a}\t{b}\t{score}\n" for a, b, score in pairs))
    kinds = {"animal": ["a red cat", "a red dog", "a red bird"], "place": ["old city", "old road", "old sea"]}
    for part in ("train", "test"):
        rows = [
            f"{text} {part} {i},{kind}\n" for kind, texts in kinds.items() for i, text in enumerate(texts)
        ]
        (folder / f"{part}.csv").write_text("".join(["text,label\n", *rows]))
    return [
        config.StsTask(kind="sts", path=str(folder / "pairs.tsv"), name="pairs"),
        config.ClassificationTask(
            kind="classification",
            train=str(folder / "train.csv"),
            test=str(folder / "test.csv"),
            name="kinds",
            samples_per_label=2,
        ),
    ]


def encoder_of(model: Any, **kwargs: Any) -> MtebEncoder:
    return MtebEncoder(model, model_meta("test", "a" * 12), **kwargs)


def score(task: Any, model: MtebEncoder | BM25Search, folder: Path | None = None) -> dict[str, Any]:
    entry = score_task(task, model, identity(task, Asking()), folder)
    assert "error" not in entry, entry["error"]
    return entry


def test_tasks_of_every_type_have_mtebs_main_score(tmp_path: Path) -> None:
    sequences = config.NumberSequencesTask(kind="number-sequences", terms=40, null_draws=10)
    tasks = [sequences, *local_tasks(tmp_path / "data"), words_task(tmp_path / "data")]
    scores = run(HashingEncoder(), tasks, tmp_path / "out")
    assert scores["failed"] == []
    entries = {entry["task"]: entry for entry in scores["tasks"]}
    assert list(entries) == ["pairs", "kinds", "words", "number-sequences"]
    assert {name: (entry["type"], entry["main_metric"]) for name, entry in entries.items()} == {
        "pairs": ("STS", "cosine_spearman"),
        "kinds": ("Classification", "accuracy"),
        "words": ("Retrieval", "ndcg_at_10"),
        "number-sequences": ("Clustering", "silhouette_true"),
    }
    results = tmp_path / "out/mteb/results/reasoning_embedding__test" / ("a" * 12)
    for name in ("pairs", "kinds", "words"):
        own = json.loads((results / f"{name}.json").read_text())["scores"]["test"][0]
        entry = entries[name]
        assert (
            entry["main_score"] == entry[entry["main_metric"]] == pytest.approx(own["main_score"], abs=1e-6)
        )
    vectors = HashingEncoder().encode(
        ["a red cat", "a blue fish", "the moon", "the red cat", "an old dog", "moons"]
    )
    cosines = (vectors[:3] * vectors[3:]).sum(axis=1)
    ranks = np.argsort(np.argsort(cosines))
    assert entries["pairs"]["main_score"] == pytest.approx(np.corrcoef(ranks, [2, 0, 1])[0, 1])
    means = scores["means"]
    assert means["missing"] == []
    assert means["by_task"] == pytest.approx(
        np.mean([entries[name]["main_score"] for name in ("pairs", "kinds", "words")])
    )


def test_clustering_and_reranking_are_scored(tmp_path: Path) -> None:
    class Clusters(AbsTaskClusteringLegacy):
        metadata = local_metadata(
            "clusters", "Clustering", "f" * 8, main_score="v_measure", instruction=None, description="x"
        )

        def load_data(self, *args: Any, **kwargs: Any) -> None:
            texts = [f"{color} {word}" for color in ("redredred", "blueblue") for word in WORDS[:6]]
            rows = Dataset.from_dict({"sentences": [texts], "labels": [[0] * 6 + [1] * 6]})
            self.dataset, self.data_loaded = DatasetDict(test=rows), True

    assert score(Clusters(), encoder_of(HashingEncoder()))["main_score"] == pytest.approx(1)
    task = LocalRetrieval("rerank", RetrievalData(CORPUS, QUERIES, QRELS))
    wrong = {query: [name for name in CORPUS if name not in QRELS[query]] for query in QUERIES}
    task.dataset["default"]["test"]["top_ranked"] = {q: [*names, f"d{q[1:]}"] for q, names in wrong.items()}
    found = score(task, encoder_of(HashingEncoder()))
    assert 0 < found["recall_at_100"] < 1, "the other right document is no candidate"
    bm25 = BM25Search(BM25(), model_meta("bm25", BM25().revision))
    assert score(task, bm25)["recall_at_100"] == found["recall_at_100"]
    assert score(task, bm25)["recall_at_1"] > 0


def test_scores_of_single_queries_are_those_behind_the_mean(tmp_path: Path) -> None:
    tasks = [words_task(tmp_path), *local_tasks(tmp_path / "data")]
    scores = run(HashingEncoder(), tasks, tmp_path / "out")
    entries = {entry["task"]: entry for entry in scores["tasks"]}
    single = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "out/per_query").iterdir()}
    assert set(single) == {"words", "kinds"}
    queries = single["words"]["scores"]
    assert single["words"]["metric"] == "ndcg_at_10"
    assert list(queries) == list(QUERIES)
    assert round(sum(queries.values()) / 6, 5) == pytest.approx(entries["words"]["ndcg_at_10"], abs=1e-9)
    vectors = HashingEncoder().encode([*CORPUS.values(), "where is the red"])
    order = np.argsort(-(vectors[:12] @ vectors[12]))
    gained = [QRELS["q0"].get(f"d{d}", 0) / math.log2(rank + 2) for rank, d in enumerate(order[:10])]
    assert queries["q0"] == pytest.approx(sum(gained) / (2 + 1 / math.log2(3)), abs=1e-9)
    experiments = single["kinds"]["scores"]
    assert single["kinds"]["metric"] == "accuracy"
    assert len(experiments) == 10
    assert sum(experiments.values()) / 10 == pytest.approx(entries["kinds"]["main_score"], abs=1e-9)
    assert query_metric("recall_at_5") == ("recall_at_5", "recall_5")
    assert query_metric("max_over_subqueries_map_at_1000") == ("ndcg_at_10", "ndcg_cut_10")


def test_a_querys_own_document_is_left_out_where_the_task_says_so() -> None:
    documents = ["the query itself", "the answer", "something else"]
    corpus = dict(zip(["q1", "d1", "d2"], documents, strict=True))
    data = RetrievalData(corpus, {"q1": "asked"}, {"q1": {"d1": 1}})
    model = encoder_of(TableEncoder(documents, {"asked": documents}))
    task = LocalRetrieval("own", data)
    assert score(task, model)["ndcg_at_10"] == pytest.approx(1 / math.log2(3), abs=1e-5)
    task.ignore_identical_ids = True
    assert score(task, model)["ndcg_at_10"] == 1


def test_a_corpus_in_chunks_scores_as_a_whole_one(tmp_path: Path) -> None:
    task = words_task(tmp_path)
    whole = run(HashingEncoder(), [task], tmp_path / "whole", {"cache_embeddings": False})
    encoder = HashingEncoder()
    chunked = run(encoder, [task], tmp_path / "chunked", {"chunk_documents": 5})
    sizes = [len(texts) for prompt, texts in encoder.calls if not prompt]
    assert sizes == [5, 5, 2]
    for metric in ("ndcg_at_10", "mrr_at_10", "recall_at_1", "recall_at_10", "recall_at_100"):
        assert chunked["tasks"][0][metric] == whole["tasks"][0][metric]
    single = [json.loads((tmp_path / n / "per_query/words.json").read_text()) for n in ("whole", "chunked")]
    assert single[0] == single[1]


def test_what_decides_a_score_is_pinned_and_asks_for_a_rerun(tiny_backbone: Path, tmp_path: Path) -> None:
    import torch

    from reasoning_embedding.backbones import Embedder, load_decoder

    task = words_task(tmp_path)
    embedder = Embedder(*load_decoder(str(tiny_backbone), bidirectional=True))
    base = run(embedder, [task], tmp_path / "out")
    assert base["settings"] == {
        "max_tokens": 512,
        "pack_tokens": 2048,
        "query_template": "Instruct: {instruction}\nQuery: ",
        "prompts_from": "the tasks' instructions",
        "dtype": "float32",
        "readout": {**vars(embedder.readout), "heads": []},
        "truncate": None,
        "quantize": None,
        "dimension": 32,
        "bytes_per_vector": 128,
        "chunk_documents": 50_000,
    }
    [entry] = base["tasks"]
    assert entry["instructions"] == {"default": {"query": "find"}}
    assert entry["prompts"] == {"default": {"query": "Instruct: find\nQuery: ", "document": ""}}

    def rerun(model: Any = embedder, **settings: Any) -> bool:
        lines: list[str] = []
        run(model, [task], tmp_path / "out", settings, report=lines.append)
        return not any("scored before" in line for line in lines)

    assert not rerun()
    assert not rerun(chunk_documents=7)
    assert rerun(pack_tokens=64)
    assert rerun(instructions={"words": "look for"})
    assert not rerun(instructions={"words": {"query": "look for"}}), "the same is sent"
    assert rerun(instructions={"words": {"query": "look for", "document": "passage: "}})
    assert rerun(embedder.to(torch.bfloat16), instructions={"words": {"query": "look for"}})


def test_lexical_models_score_what_they_can_and_fail_where_they_cannot(tmp_path: Path) -> None:
    tasks = [*local_tasks(tmp_path / "data"), words_task(tmp_path / "data")]
    tfidf = TfIdf(dimension=4096)
    scores = run(tfidf, tasks, tmp_path / "tfidf")
    assert [entry["task"] for entry in scores["tasks"]] == ["pairs", "kinds", "words"]
    assert [entry["instruction"] for entry in scores["tasks"]] == [""] * 3
    assert scores["tasks"][2]["prompts"] == {"default": {"query": "", "document": ""}}
    assert not (tmp_path / "tfidf" / "embeddings").exists()
    scores = run(BM25(), tasks, tmp_path / "bm25")
    assert [entry["task"] for entry in scores["failed"]] == ["pairs", "kinds"]
    assert scores["means"]["by_task"] is None
    assert scores["means"]["missing"] == ["pairs", "kinds"]


def test_number_sequences_may_not_share_a_name(tmp_path: Path) -> None:
    sequences = config.NumberSequencesTask(kind="number-sequences", name="words")
    with pytest.raises(InputError, match="two tasks are named 'words'"):
        run(HashingEncoder(), [sequences, words_task(tmp_path)], tmp_path / "out")


def test_packed_encoding_scores_as_sentence_transformers_does(tiny_backbone: Path, tmp_path: Path) -> None:
    import mteb
    from sentence_transformers import SentenceTransformer

    from reasoning_embedding.backbones import Embedder, load_decoder
    from reasoning_embedding.checkpoints.embedder import load_embedder, save_checkpoint

    folder = tmp_path / "checkpoint"
    made = Embedder(*load_decoder(str(tiny_backbone), bidirectional=True))
    save_checkpoint(folder, made, max_tokens=512, parent=None)
    task = words_task(tmp_path)
    [entry] = run(load_embedder(folder), [task], tmp_path / "out", {"pack_tokens": 32})["tasks"]
    plain = SentenceTransformer(str(folder), device="cpu", prompts={"query": entry["prompt"], "document": ""})
    local = LocalRetrieval("words", RetrievalData(CORPUS, QUERIES, QRELS, "find"))
    found = mteb.evaluate(plain, local, cache=None, co2_tracker=False, show_progress_bar=False)
    other = found.task_results[0].scores["test"][0]
    for metric in ("ndcg_at_10", "mrr_at_10", "recall_at_1", "map_at_5"):
        if metric in entry:
            assert entry[metric] == pytest.approx(other[metric], abs=1e-4), metric
    ours = load_embedder(folder).encode(list(QUERIES.values()), prompt=entry["prompt"], pack_tokens=32)
    theirs = plain.encode(list(QUERIES.values()), prompt=entry["prompt"])
    assert np.abs(ours - theirs).max() < 1e-5
