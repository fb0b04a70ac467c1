"""The TF-IDF baseline against scikit-learn's exact one, and on real pairs its known floors."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer

from reasoning_embedding.errors import ReasoningEmbeddingError
from reasoning_embedding.evaluation.floors.tfidf import TfIdf

TEXTS = [
    "A plane is taking off.",
    "An air plane is taking off.",
    "A man is playing a large flute.",
    "A man plays the flute!",
    "The stock market fell 3 % today",
    "the the the the",
]


def exact(texts: list[str]) -> np.ndarray:
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True).fit_transform(texts)
    return (vectors @ vectors.T).toarray()


def test_cosines_are_those_of_scikit_learn() -> None:
    vectors = TfIdf(dimension=2**17).fit(TEXTS).encode(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors @ vectors.T, exact(TEXTS), atol=0.01)
    small = TfIdf(dimension=1024).fit(TEXTS).encode(TEXTS)
    np.testing.assert_allclose(small @ small.T, exact(TEXTS), atol=4 / 32)


def test_frequencies_are_those_of_the_last_fit() -> None:
    model = TfIdf(dimension=2**14).fit(TEXTS)
    first = model.encode(TEXTS)
    assert not np.allclose(model.fit(TEXTS[:1] * 50 + TEXTS).encode(TEXTS), first, atol=1e-3)
    np.testing.assert_array_equal(model.fit(iter(TEXTS)).encode(TEXTS), first)


def test_chunks_and_progress_change_nothing() -> None:
    texts = [f"{TEXTS[index % 6]} {index}" for index in range(1100)]
    model = TfIdf(dimension=256).fit(texts)
    seen: list[tuple[int, int]] = []
    vectors = model.encode(texts, prompt="Instruct: ", progress=lambda *done: seen.append(done))
    assert seen == [(1024, 1100), (1100, 1100)]
    np.testing.assert_array_equal(vectors[1050:1060], model.encode(texts[1050:1060]))


def test_empty_text_is_zero_not_nan() -> None:
    vectors = TfIdf(dimension=64).fit(["", "a b"]).encode(["", "unseen words"])
    assert not vectors[0].any()
    assert np.linalg.norm(vectors[1]) == pytest.approx(1, rel=1e-5)
    assert TfIdf(dimension=64).fit([]).encode([]).shape == (0, 64)


def test_unfitted_and_impossible() -> None:
    with pytest.raises(ReasoningEmbeddingError, match="no document frequencies"):
        TfIdf().encode(TEXTS)
    with pytest.raises(ValueError, match="not a power of two"):
        TfIdf(dimension=1000)


def test_revision_names_what_decides() -> None:
    assert TfIdf().revision == "char-wb-2-5-sublinear-8192"
    assert TfIdf((3, 4), 64).revision == "char-wb-3-4-sublinear-64"


def test_floor_of_stsb(real_data: Path) -> None:
    with (real_data / "stsb" / "stsb-en-test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    first, second = [row[0] for row in rows], [row[1] for row in rows]
    model = TfIdf().fit([*first, *second])
    cosines = (model.encode(first) * model.encode(second)).sum(axis=1)
    assert spearmanr(cosines, [float(row[2]) for row in rows]).statistic == pytest.approx(
        0.7145, abs=2e-3
    )  # exact value
