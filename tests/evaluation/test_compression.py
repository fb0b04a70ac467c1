"""Shorter and coarser vectors: the codes of sentence-transformers, and the scores that its evaluators give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from typer.testing import CliRunner

from reasoning_embedding import config
from reasoning_embedding.backbones.compression import Compression, ranges_of
from reasoning_embedding.cli.main import app
from reasoning_embedding.errors import InputError
from reasoning_embedding.evaluation.run import evaluate
from tests.encoders import HashingEncoder
from tests.factories import write_beir

ROWS = np.random.default_rng(0).normal(size=(40, 32)).astype(np.float32)
UNIT = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)


def test_what_a_vector_costs() -> None:
    sizes = {
        (None, None): 4096,
        (256, None): 1024,
        (256, "int8"): 256,
        (256, "binary"): 32,
        (None, "binary"): 128,
    }
    for (truncate, quantize), size in sizes.items():
        assert Compression(truncate, quantize).bytes(1024) == size  # ty: ignore[invalid-argument-type]
    assert Compression(256, "int8").name == "256-int8"
    assert Compression().name == ""
    with pytest.raises(InputError, match="32 entries, fewer than 33"):
        Compression(33).shorten(UNIT)


def test_codes_are_those_of_the_library() -> None:
    from sentence_transformers.util import quantize_embeddings, truncate_embeddings

    short = Compression(8).shorten(UNIT)
    expected = truncate_embeddings(UNIT, 8)
    np.testing.assert_allclose(short, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    ranges = ranges_of(UNIT)
    int8, binary = Compression(quantize="int8"), Compression(quantize="binary")
    np.testing.assert_array_equal(int8.codes(UNIT, ranges), quantize_embeddings(UNIT, "int8", ranges=ranges))
    packed = binary.codes(UNIT)
    np.testing.assert_array_equal(packed, quantize_embeddings(UNIT, "binary"))
    assert packed.shape == (40, 4)
    with pytest.raises(InputError, match="at least two vectors"):
        ranges_of(UNIT[:1])


def test_signs_rank_by_the_hamming_distance() -> None:
    signs = Compression(quantize="binary").scored(UNIT, signs=True)
    hamming = (UNIT[:, None] > 0) != (UNIT[None] > 0)
    np.testing.assert_allclose(signs @ signs.T, 1 - 2 * hamming.mean(axis=2), atol=1e-6)


def _pairs(folder: Path) -> tuple[config.StsTask, list[tuple[str, str, float]]]:
    words = "red cat dog river stone city king moon sun tree fish bird house road fox sea".split()
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(40):
        a, b = (" ".join(rng.choice(words, 5)) for _ in range(2))
        rows.append((a, b, float(len(set(a.split()) & set(b.split())))))
    folder.mkdir(exist_ok=True)
    (folder / "pairs.tsv").write_text("".join(f"{a}\t{b}\t{score}\n" for a, b, score in rows))
    return config.StsTask(kind="sts", path=str(folder / "pairs.tsv"), name="pairs"), rows


def _score(task: Any, folder: Path, **settings: Any) -> dict[str, Any]:
    evaluation = config.Evaluation(tasks=[task], **settings)
    found = evaluate(HashingEncoder(), evaluation, folder, model_name="m", revision="r", step=None)
    assert not found["failed"], found["failed"]
    return found


@pytest.mark.parametrize("quantize", ["int8", "binary"])
def test_pairs_score_as_the_librarys_evaluator_scores_them(tmp_path: Path, quantize: str) -> None:
    from sentence_transformers.util import pairwise_cos_sim, quantize_embeddings

    task, rows = _pairs(tmp_path / "data")
    [entry] = _score(task, tmp_path / "out", quantize=quantize)["tasks"]
    encoder = HashingEncoder()
    vectors = encoder.encode([*(a for a, _, _ in rows), *(b for _, b, _ in rows)])
    codes = quantize_embeddings(
        vectors, quantize
    )  # both sides together, as EmbeddingSimilarityEvaluator does
    if quantize == "binary":
        codes = np.unpackbits((codes.astype(np.int16) + 128).astype(np.uint8), axis=1)
    codes = codes.astype(np.float32)
    expected = spearmanr([score for _, _, score in rows], pairwise_cos_sim(codes[:40], codes[40:])).statistic
    assert entry["main_score"] == pytest.approx(expected, abs=1e-4)
    [whole] = _score(task, tmp_path / "out")["tasks"]
    assert whole["main_score"] != entry["main_score"], "coarser vectors are other vectors"


@pytest.mark.parametrize("chunk", [3, 50])
def test_documents_give_the_range_of_queries(tmp_path: Path, chunk: int) -> None:
    """Whatever the chunks: the first one that is encoded."""
    folder = write_beir(tmp_path / "data")
    task = config.BeirTask(kind="beir", path=str(folder))
    found = _score(task, tmp_path / "out", quantize="int8", chunk_documents=chunk, truncate=16)
    encoder, kept = HashingEncoder(), Compression(16, "int8")
    corpus = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    queries = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    documents = kept.shorten(encoder.encode([row["text"] for row in corpus]))
    ranges = ranges_of(documents[:chunk])
    asked = kept.scored(kept.shorten(encoder.encode([row["text"] for row in queries])), ranges)
    order = np.argsort(-(asked @ kept.scored(documents, ranges).T), axis=1)
    ranks = [list(order[i]).index(i) for i in range(3)]  # query i asks for document i
    [entry] = found["tasks"]
    assert entry["mrr_at_10"] == pytest.approx(np.mean([1 / (rank + 1) for rank in ranks]), abs=1e-5)
    assert found["settings"]["bytes_per_vector"] == 16


def test_each_way_of_keeping_vectors_has_scores_of_its_own(tmp_path: Path, beir: Path) -> None:
    task = config.BeirTask(kind="beir", path=str(beir))
    sizes = {}
    for settings in ({}, {"truncate": 16}, {"truncate": 16, "quantize": "binary"}):
        found = _score(task, tmp_path, **settings)
        sizes[found["settings"]["bytes_per_vector"]] = found["settings"]["dimension"]
    assert sizes == {256: 64, 64: 16, 2: 16}
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("scores.json"))
    assert files == ["16-binary/scores.json", "16/scores.json", "scores.json"]


def test_embed_writes_codes_and_the_ranges_they_lie_between(tmp_path: Path, tiny_backbone: Path) -> None:
    (tmp_path / "texts.txt").write_text("red cat\nblue fish in the river\nking\n")
    (tmp_path / "queries.txt").write_text("red cat\n")

    def embed(texts: str, output: str, *words: str, code: int = 0) -> str:
        arguments = ["embed", tiny_backbone, tmp_path / texts, "-o", tmp_path / output, *words]
        result = CliRunner().invoke(app, [str(word) for word in arguments])
        assert result.exit_code == code, result.output
        return " ".join(result.output.split())

    embed("texts.txt", "whole.npy")
    whole = np.load(tmp_path / "whole.npy")
    embed("texts.txt", "short.npy", "--truncate", "8")
    np.testing.assert_allclose(np.load(tmp_path / "short.npy"), Compression(8).shorten(whole), atol=1e-6)
    embed("texts.txt", "bits.npy", "--quantize", "binary")
    assert np.load(tmp_path / "bits.npy").shape == (3, 4)
    embed("texts.txt", "int8.npy", "--quantize", "int8")
    ranges = tmp_path / "int8.ranges.npy"
    embed("queries.txt", "query.npy", "--quantize", "int8", "--ranges", str(ranges))
    np.testing.assert_array_equal(np.load(tmp_path / "query.npy")[0], np.load(tmp_path / "int8.npy")[0])
    assert "at least two vectors" in embed("queries.txt", "q.npy", "--quantize", "int8", code=2)
    assert "(2, 8) is needed" in embed(
        "queries.txt", "q.npy", "--quantize", "int8", "--truncate", "8", "--ranges", str(ranges), code=2
    )
    assert "--ranges are those of int8 codes" in embed(
        "queries.txt", "q.npy", "--ranges", str(ranges), code=2
    )
    assert "fewer than 99" in embed("texts.txt", "q.npy", "--truncate", "99", code=2)
