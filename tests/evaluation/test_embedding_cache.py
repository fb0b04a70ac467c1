"""Embeddings kept on disk: found again when they are the same, and only then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reasoning_embedding import config
from reasoning_embedding.checkpoints.scores import revision_of
from reasoning_embedding.errors import SetupError
from reasoning_embedding.evaluation.embedding_cache import CachedEncoder, EmbeddingCache
from reasoning_embedding.evaluation.run import evaluate
from tests.encoders import HashingEncoder
from tests.factories import flip, write_beir

TEXTS = ["the red cat sleeps", "a blue fish eats", "the old dog runs"]
CORPUS = {f"d{i}": text for i, text in enumerate(TEXTS)}


def test_the_same_texts_are_encoded_once(tmp_path: Path) -> None:
    encoder = HashingEncoder()
    cache = EmbeddingCache(tmp_path / "embeddings", "rev")
    cached = CachedEncoder(encoder, cache)
    first = cached.encode(TEXTS)
    again = CachedEncoder(encoder, EmbeddingCache(tmp_path / "embeddings", "rev")).encode(TEXTS)
    assert len(encoder.calls) == 1
    assert first.dtype == again.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, HashingEncoder().encode(TEXTS))
    count, size = cache.size
    assert (count, size) == (1, 3 * 64 * 4 + 128 + 4)
    assert str(cache) == f"1 corpus chunks, 0.0 MB in {tmp_path / 'embeddings'}"
    assert [path.suffix for path in (tmp_path / "embeddings").iterdir()] == [".npy"], "nothing half-written"


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"prompt": "find"},
        {"max_tokens": 8},
        {"texts": TEXTS[::-1]},
        {"texts": TEXTS[:2]},
        {"texts": [TEXTS[0] + TEXTS[1][:1], TEXTS[1][1:], TEXTS[2]]},
    ],
)
def test_anything_else_is_no_hit(tmp_path: Path, change: dict) -> None:
    def path(model: str = "rev", texts: list[str] = TEXTS, prompt: str = "", max_tokens: int = 512) -> Path:
        return EmbeddingCache(tmp_path, model).path(texts, prompt=prompt, max_tokens=max_tokens)

    assert path(**change) != path()
    assert path(**change) == path(**change)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        lambda path: path.write_bytes(b""),
        lambda path: np.save(path, np.zeros((3, 5), np.float32)),
        lambda path: flip(path, 200),
        lambda path: flip(path, -1),
    ],
)
def test_a_damaged_array_is_encoded_again(
    tmp_path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    encoder = HashingEncoder()
    cached = CachedEncoder(encoder, EmbeddingCache(tmp_path, "rev"))
    first = cached.encode(TEXTS)
    damage(next(tmp_path.glob("*.npy")))
    np.testing.assert_array_equal(cached.encode(TEXTS), first)
    assert len(encoder.calls) == 2
    assert "embedded again" in caplog.text
    np.testing.assert_array_equal(cached.encode(TEXTS), first)
    assert len(encoder.calls) == 2


def test_what_is_not_finite_is_not_kept(tmp_path: Path) -> None:
    class Broken(HashingEncoder):
        def encode(self, texts, **kwargs) -> np.ndarray:
            return np.full((len(texts), self.dimension), np.nan, np.float32)

    CachedEncoder(Broken(), EmbeddingCache(tmp_path, "rev")).encode(TEXTS)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cached = CachedEncoder(HashingEncoder(), EmbeddingCache(tmp_path / "file" / "embeddings", "rev"))
    with pytest.raises(SetupError, match="a file stands where a folder should be"):
        cached.encode(TEXTS)


def two_tasks(folder: Path) -> list:
    paths = {
        "one": write_beir(folder / "one", CORPUS, {"q": "where is the cat"}, {"q": {"d0": 1}}),
        "two": write_beir(folder / "two", CORPUS, {"q": "who runs"}, {"q": {"d2": 1}}),
    }
    return [config.BeirTask(kind="beir", path=str(path)) for path in paths.values()]


def run(encoder: HashingEncoder, tasks: list, folder: Path, content: str, **settings: object) -> list[float]:
    values = config.Evaluation.model_validate({"tasks": tasks, **settings})
    revision = revision_of(200, content)
    scores = evaluate(encoder, values, folder, model_name="test", revision=revision, step=200)
    assert scores["failed"] == []
    return [entry["main_score"] for entry in scores["tasks"]]


def documents_encoded(encoder: HashingEncoder) -> int:
    return sum(texts == TEXTS for _, texts in encoder.calls)


def test_tasks_and_calls_share_a_corpus_and_changed_weights_never_hit(tmp_path: Path) -> None:
    tasks = two_tasks(tmp_path / "data")
    encoder = HashingEncoder(0)
    old = run(encoder, tasks, tmp_path / "out", "a" * 64)
    assert documents_encoded(encoder) == 1, "two tasks, one corpus"
    encoder = HashingEncoder(0)
    assert run(encoder, tasks, tmp_path / "out", "a" * 64, instructions={"one": "find"})[1] == old[1]
    assert documents_encoded(encoder) == 0, "asked otherwise, over the same documents"
    changed = HashingEncoder(1)
    new = run(changed, tasks, tmp_path / "out", "b" * 64)
    assert documents_encoded(changed) == 1
    assert new == run(HashingEncoder(1), tasks, tmp_path / "alone", "b" * 64)


def test_the_cache_can_be_off(tmp_path: Path) -> None:
    encoder = HashingEncoder()
    run(encoder, two_tasks(tmp_path / "data"), tmp_path / "out", "a" * 64, cache_embeddings=False)
    assert documents_encoded(encoder) == 2
    assert not (tmp_path / "out" / "embeddings").exists()
