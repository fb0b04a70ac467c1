"""Number sequences: the texts, the scores and the baselines of METHODS, to their last digit."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from reasoning_embedding.config import NumberSequencesTask
from reasoning_embedding.errors import ReasoningEmbeddingError
from reasoning_embedding.evaluation.floors.tfidf import TfIdf
from reasoning_embedding.evaluation.number_sequences import (
    FAMILIES,
    baseline_scores,
    clustering_scores,
    fingerprint,
    is_standard,
    random_null,
    score,
    sequences,
)

STANDARD = NumberSequencesTask(kind="number-sequences")
SMALL = NumberSequencesTask(kind="number-sequences", terms=20, null_draws=9)
CHARACTERS = {
    "consecutive": [189, 199, 248, 248],
    "even": [195, 248, 248, 248],
    "odd": [193, 248, 248, 248],
    "prime": [219, 248, 248, 280],
    "recaman": [192, 220, 243, 246],
    "composite": [194, 225, 248, 248],
}


class Fixed:
    """Embeddings given beforehand; records what it was asked."""

    def __init__(self, embeddings: np.ndarray) -> None:
        self.embeddings = embeddings.astype(np.float32)
        self.dimension = embeddings.shape[1]
        self.asked: list[dict] = []

    def encode(self, texts, **options) -> np.ndarray:
        self.asked.append(options)
        return self.embeddings[: len(texts)]


def perfect(dimension: int = 8, noise: float = 0.01) -> np.ndarray:
    centres = np.eye(6, dimension).repeat(4, axis=0)
    vectors = centres + noise * np.random.default_rng(0).standard_normal(centres.shape)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def task(**fields) -> NumberSequencesTask:
    return NumberSequencesTask(kind="number-sequences", **fields)


def test_families_end_as_published() -> None:
    terms = {name: list(islice(make(), 200)) for name, make in FAMILIES.items()}
    assert {name: values[-1] for name, values in terms.items()} == {
        "consecutive": 200,
        "even": 400,
        "odd": 399,
        "prime": 1223,
        "recaman": 258,
        "composite": 255,
    }
    assert terms["recaman"][:12] == [0, 1, 3, 6, 2, 7, 13, 20, 12, 21, 11, 22]
    assert max(terms["recaman"]) == 833
    assert len(terms["recaman"]) - len(set(terms["recaman"])) == 20
    assert sorted({*terms["prime"], *terms["composite"]})[:9] == [2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_the_24_texts() -> None:
    data = sequences(STANDARD)
    assert len(data.texts) == 24
    assert data.texts[4].startswith("2, 4, 6, 8, ")
    assert data.texts[0].endswith("49, 50")
    lengths = {
        name: [len(text) for text, label in zip(data.texts, data.labels, strict=True) if label == index]
        for index, name in enumerate(data.families)
    }
    assert lengths == CHARACTERS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tfidf", (-0.1361, 3.6309, 0.2458, 1.1621)),
        ("digit_histogram", (-0.1535, 3.5046, 0.2672, 1.1101)),
        ("hand_made", (0.6874, 0.4766, 0.7043, 0.4028)),  # of our own definition, see its docstring
    ],
)
def test_baselines(name: str, expected: tuple[float, ...], baselines: dict[str, dict[str, float]]) -> None:
    found = baselines[name]
    keys = ("silhouette_true", "davies_bouldin_true", "silhouette_kmeans", "davies_bouldin_kmeans")
    assert tuple(round(found[key], 4) for key in keys) == expected


def test_random_baseline(baselines: dict[str, dict[str, float]]) -> None:
    assert {key: round(value, 4) for key, value in baselines["random"].items()} == {
        "silhouette_true": -0.0177,
        "sd": 0.0050,
    }


@pytest.fixture(scope="module")
def baselines() -> dict[str, dict[str, float]]:
    return baseline_scores(sequences(STANDARD), STANDARD)


def test_score_of_perfect_clusters() -> None:
    model = Fixed(perfect())
    entry = score(model, SMALL, max_tokens=99, pack_tokens=77)
    assert model.asked == [{"prompt": "", "max_tokens": 99, "pack_tokens": 77}]
    assert entry["main_score"] == entry["silhouette_true"] > 0.95
    assert entry["davies_bouldin_true"] < 0.05
    assert entry["silhouette_kmeans"] == entry["silhouette_true"]
    assert entry["ari"] == 1.0
    assert entry["null"]["p_value"] == pytest.approx(1 / 10)  # no draw of nine is as good: never 0
    assert (entry["task"], entry["type"], entry["texts"]) == ("number-sequences", "Clustering", 24)
    assert len(entry["tsne"]["points"]) == len(entry["tsne"]["labels"]) == 24
    assert entry["tsne"]["perplexity"] == 10


def test_null_is_calibrated_for_random_directions() -> None:
    labels, draws = np.repeat([0, 1], 4), task(null_draws=19)
    values = []
    for seed in range(40):
        vectors = np.random.default_rng(1000 + seed).standard_normal((8, 16))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        observed = clustering_scores(vectors, labels)["silhouette_true"]
        values.append(random_null(observed, labels, 16, draws)["p_value"])
    assert 0.35 < np.mean(values) < 0.65  # uniform p-values: mean 0.525, standard error 0.046
    assert min(values) < 0.2
    assert max(values) > 0.8


def test_silhouette_by_hand() -> None:
    points = np.array([[0.0, 0.0], [0.0, 1.0], [4.0, 0.0], [4.0, 1.0]])
    found = clustering_scores(points, np.array([0, 0, 1, 1]))
    other = (4 + np.sqrt(17)) / 2
    assert found["silhouette_true"] == pytest.approx(1 - 1 / other)
    assert found["davies_bouldin_true"] == pytest.approx((0.5 + 0.5) / 4)
    assert found["ari"] == 1.0


def test_variants_by_configuration() -> None:
    larger = sequences(task(terms=400, chunks=20))
    assert len(larger.texts) == 120
    assert larger.terms.shape == (120, 20)
    two = sequences(task(families=["odd", "even"]))
    assert two.families == ("odd", "even")
    assert two.texts[0].startswith("1, 3, 5")
    plain, mixed = sequences(STANDARD), sequences(task(shuffled=True))
    assert plain.texts != mixed.texts
    np.testing.assert_array_equal(np.sort(plain.terms), np.sort(mixed.terms))
    assert mixed.texts == sequences(task(shuffled=True)).texts != sequences(task(shuffled=True, seed=1)).texts


def test_few_texts_get_a_smaller_perplexity() -> None:
    entry = score(Fixed(perfect()[:8]), task(families=["even", "odd"], terms=8, null_draws=1))
    assert entry["tsne"]["perplexity"] == pytest.approx(7 / 3)
    assert len(entry["tsne"]["points"]) == 8


def test_standard_and_fingerprint() -> None:
    assert is_standard(task(name="other", null_draws=3))
    assert not is_standard(task(shuffled=True))
    assert fingerprint(STANDARD) == fingerprint(task(name="other"))
    others = [task(shuffled=True), task(seed=1), task(null_draws=3), task(terms=400)]
    assert len({fingerprint(STANDARD), *map(fingerprint, others)}) == 5


def test_tfidf_is_a_model_like_any_other() -> None:
    entry = score(TfIdf(dimension=1024), SMALL)
    assert entry["silhouette_true"] < 0.2
    assert entry["null"]["p_value"] <= 1


def test_collapsed_embeddings_are_said() -> None:
    with pytest.raises(ReasoningEmbeddingError, match="only 1 of 24 number texts have different embeddings"):
        score(Fixed(np.ones((24, 4))), SMALL)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"chunks": 1}, "at least 2 chunks"),
        ({"terms": 201}, "equal length"),
        ({"terms": 4, "chunks": 4}, "at least 2 terms"),
        ({"families": ["odd", "odd"]}, "odd stands twice"),
        ({"seed": -1}, "greater than or equal to 0"),
    ],
)
def test_impossible_tasks_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(**fields)
