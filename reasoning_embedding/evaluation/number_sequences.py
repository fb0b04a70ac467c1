"""Clustering of number sequences: does an embedding keep texts of one arithmetic family together?"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_rand_score, davies_bouldin_score, silhouette_score

from reasoning_embedding import config
from reasoning_embedding.backbones.compression import Compression, ranges_of
from reasoning_embedding.errors import ReasoningEmbeddingError

from .floors.tfidf import TfIdf
from .sharding import TextEncoder

#: Dimension of the random baseline, that of common small embedders.
RANDOM_DIMENSION = 384
#: Initialisations of KMeans; the best by inertia is kept.
KMEANS_INITIALISATIONS = 10
#: t-SNE of the figure; fewer texts than this need a smaller perplexity.
PERPLEXITY = 10
TSNE_ITERATIONS = 1000


@dataclass(frozen=True)
class Sequences:
    """The texts of a task.

    Parameters
    ----------
    texts : tuple of str
        Terms joined by ``", "``, family by family, chunk by chunk.
    terms : np.ndarray
        (n texts, terms of a chunk) int64, the numbers of each text in its order.
    labels : np.ndarray
        (n texts,) int64, index into ``families``.
    families : tuple of str
        Names.
    """

    texts: tuple[str, ...]
    terms: np.ndarray
    labels: np.ndarray
    families: tuple[str, ...]


def is_prime(number: int) -> bool:
    """Return whether a natural number is prime, by trial division."""
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def recaman() -> Iterator[int]:
    """Yield Recaman's sequence (OEIS A005132) from a(0) = 0.

    a(n) = a(n - 1) - n where that is positive and new, else a(n - 1) + n.
    """
    value, seen = 0, {0}
    yield value
    for step in itertools.count(1):
        back = value - step
        value = back if back > 0 and back not in seen else value + step
        seen.add(value)
        yield value


FAMILIES: dict[str, Callable[[], Iterator[int]]] = {
    "consecutive": lambda: itertools.count(1),
    "even": lambda: itertools.count(2, 2),
    "odd": lambda: itertools.count(1, 2),
    "prime": lambda: filter(is_prime, itertools.count(2)),
    "recaman": recaman,
    "composite": lambda: (number for number in itertools.count(4) if not is_prime(number)),
}


def sequences(task: config.NumberSequencesTask) -> Sequences:
    """Return the first ``terms`` of each family, cut into ``chunks`` consecutive texts of equal length."""
    chunks = []
    for family in task.families:
        terms = np.fromiter(itertools.islice(FAMILIES[family](), task.terms), np.int64, task.terms)
        chunks.append(terms.reshape(task.chunks, -1))
    terms = np.concatenate(chunks)
    if task.shuffled:
        terms = np.random.default_rng(task.seed).permuted(terms, axis=1)
    return Sequences(
        texts=tuple(", ".join(map(str, row)) for row in terms.tolist()),
        terms=terms,
        labels=np.repeat(np.arange(len(task.families)), task.chunks),
        families=tuple(task.families),
    )


def character_tfidf(data: Sequences) -> np.ndarray:
    """TF-IDF of character 1- to 3-grams, scikit-learn's defaults otherwise (n, vocabulary)."""
    return TfidfVectorizer(analyzer="char", ngram_range=(1, 3)).fit_transform(data.texts).toarray()


def digit_histogram(data: Sequences) -> np.ndarray:
    """Counts of ``0`` to ``9`` and of the comma over the text's length in characters (n, 11).

    The comma stands for how many digits its numbers have, hence for their size.
    """
    shares = [[text.count(character) / len(text) for character in "0123456789,"] for text in data.texts]
    return np.array(shares)


def hand_made(data: Sequences) -> np.ndarray:
    """What defines the families, each column standardised over the texts (n, 10).

    Share of even terms; share of each residue modulo 6; share of primes; mean and standard deviation of
    the differences of neighbouring terms. The upper reference: an embedder that scored as high would know
    parity, divisibility and spacing.

    The known baseline of this name (silhouette 0.4953, Davies-Bouldin 0.6486) is described by its four subjects
    alone. No combination of shares, moments and scalings of them that was tried gives both of its numbers.
    """
    terms = data.terms
    gaps = np.diff(terms, axis=1)
    columns = np.column_stack(
        [
            (terms % 2 == 0).mean(axis=1),
            *((terms % 6 == residue).mean(axis=1) for residue in range(6)),
            np.array([[is_prime(int(term)) for term in row] for row in terms]).mean(axis=1),
            gaps.mean(axis=1),
            gaps.std(axis=1),
        ]
    )
    spread = columns.std(axis=0)
    return (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1)


def random_embeddings(count: int, seed: int) -> np.ndarray:
    """Independent standard normal numbers (count, 384).

    Drawn with NumPy's legacy generator, whose stream is frozen: the same numbers in every version.
    """
    return np.random.RandomState(seed).randn(count, RANDOM_DIMENSION)


BASELINES: dict[str, Callable[[Sequences], np.ndarray]] = {
    "tfidf": character_tfidf,
    "digit_histogram": digit_histogram,
    "hand_made": hand_made,
}


def score(
    model: TextEncoder,
    task: config.NumberSequencesTask,
    *,
    max_tokens: int | None = None,
    compression: Compression | None = None,
    pack_tokens: int | None = None,
) -> dict[str, Any]:
    """Score how an embedder's clusters of number texts agree with their families.

    Parameters
    ----------
    model : TextEncoder
        Sees the texts without an instruction.
    task : config.NumberSequencesTask
        Families, terms, chunks, order, draws of the null and seed.
    max_tokens : int, optional
        Longer texts are cut; absent: at the model's own limit.
    compression : Compression, optional
        What is kept of a vector; absent: all of it.
    pack_tokens : int, optional
        Tokens of one forward; absent: what suits the device.

    Returns
    -------
    dict
        An entry of ``scores.json``: ``silhouette_true`` (the main score, -1 to 1, larger is better) and
        ``davies_bouldin_true`` (from 0, smaller is better) with families as clusters; the same with the
        clusters of KMeans; ``ari`` between the two; ``null`` and ``baselines``; ``tsne``, the points of the
        figure; ``fingerprint`` of texts and settings.

    Raises
    ------
    ReasoningEmbeddingError
        If fewer texts than families have embeddings of their own: KMeans has nothing to divide.

    Notes
    -----
    Silhouette: Rousseeuw 1987; Davies-Bouldin index: Davies and Bouldin 1979; both Euclidean, as in
    scikit-learn. With few texts both are noisy: read them beside the null and the baselines. A small p-value
    says only that the vectors are not random; that they carry more than digits, the lexical baselines say.
    """
    data = sequences(task)
    if isinstance(model, TfIdf):
        model.fit(data.texts)
    kept = compression or Compression()
    vectors = kept.shorten(
        model.encode(data.texts, prompt="", max_tokens=max_tokens, pack_tokens=pack_tokens)
    )
    ranges = ranges_of(vectors) if kept.quantize == "int8" else None
    embeddings = kept.scored(vectors, ranges).astype(np.float64)
    distinct = len(np.unique(embeddings, axis=0))
    if distinct < len(data.families):
        raise ReasoningEmbeddingError(
            f"only {distinct} of {len(data.texts)} number texts have different embeddings",
            where=task.name,
            todo="check that the tokenizer knows digits and that the model has not collapsed",
        )
    scores = clustering_scores(embeddings, data.labels, seed=task.seed)
    null = random_null(scores["silhouette_true"], data.labels, model.dimension, task)
    return {
        **identity(task),
        "main_metric": "silhouette_true",
        "main_score": scores["silhouette_true"],
        **scores,
        "texts": len(data.texts),
        "null": null,
        "baselines": baseline_scores(data, task),
        "standard": is_standard(task),
        "tsne": project(embeddings, data, seed=task.seed),
    }


def identity(task: config.NumberSequencesTask) -> dict[str, Any]:
    """Return what, beside model and settings, decides the score, as of a task of mteb."""
    return {"task": task.name, "type": "Clustering", "fingerprint": fingerprint(task)}


def fingerprint(task: config.NumberSequencesTask) -> str:
    """SHA-256 over the texts and what else decides the scores of a task."""
    record = [sequences(task).texts, task.null_draws, task.seed]
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def is_standard(task: config.NumberSequencesTask) -> bool:
    """Return whether the texts are the published ones, so that scores may stand beside published ones."""
    return sequences(task).texts == sequences(config.NumberSequencesTask(kind="number-sequences")).texts


def clustering_scores(embeddings: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> dict[str, float]:
    """Silhouette and Davies-Bouldin with true labels and with those of KMeans, and the ARI of the two.

    Parameters
    ----------
    embeddings : np.ndarray
        (n, D); at least as many distinct rows as there are labels.
    labels : np.ndarray
        (n,) true cluster of each row.
    seed : int
        Of KMeans, from 0.
    """
    clusters = len(np.unique(labels))
    found = KMeans(clusters, n_init=KMEANS_INITIALISATIONS, random_state=seed).fit_predict(embeddings)
    return {
        "silhouette_true": float(silhouette_score(embeddings, labels)),
        "davies_bouldin_true": float(davies_bouldin_score(embeddings, labels)),
        "silhouette_kmeans": float(silhouette_score(embeddings, found)),
        "davies_bouldin_kmeans": float(davies_bouldin_score(embeddings, found)),
        "ari": float(adjusted_rand_score(labels, found)),
    }


def baseline_scores(data: Sequences, task: config.NumberSequencesTask) -> dict[str, dict[str, float]]:
    """Score the baselines that need no model on the same texts.

    Returns
    -------
    dict
        ``tfidf``, ``digit_histogram`` and ``hand_made``: as :func:`clustering_scores`; ``random``: mean and
        ``sd`` of ``silhouette_true`` over ``null_draws`` draws of 384 independent normal numbers a text.
    """
    found = {
        name: clustering_scores(features(data), data.labels, seed=task.seed)
        for name, features in BASELINES.items()
    }
    draws = [
        silhouette_score(random_embeddings(len(data.texts), task.seed + draw), data.labels)
        for draw in range(task.null_draws)
    ]
    found["random"] = {"silhouette_true": float(np.mean(draws)), "sd": float(np.std(draws))}
    return found


def project(embeddings: np.ndarray, data: Sequences, *, seed: int = 0) -> dict[str, Any]:
    """Project embeddings to the plane by t-SNE (van der Maaten and Hinton 2008), for the figure.

    The perplexity is 10, or a third of the other texts where there are so few that 10 is not below n.
    """
    count = len(embeddings)
    perplexity = PERPLEXITY if count > PERPLEXITY else (count - 1) / 3
    model = TSNE(perplexity=perplexity, max_iter=TSNE_ITERATIONS, init="pca", random_state=seed)
    points = model.fit_transform(embeddings.astype(np.float32))
    return {
        "points": [[round(float(x), 4), round(float(y), 4)] for x, y in points],
        "labels": data.labels.tolist(),
        "families": list(data.families),
        "perplexity": perplexity,
    }


def random_null(
    observed: float, labels: np.ndarray, dimension: int, task: config.NumberSequencesTask
) -> dict[str, float]:
    """Hold a silhouette against those of random directions.

    Parameters
    ----------
    observed : float
        Silhouette with true labels.
    labels : np.ndarray
        (n,) true clusters.
    dimension : int
        That of the model. Drawn vectors have unit norm, as embeddings have: where lengths differ,
        silhouettes are lower.
    task : config.NumberSequencesTask
        ``null_draws`` and ``seed``.

    Returns
    -------
    dict
        ``draws``, ``mean``, ``sd`` and ``p_value`` = (1 + #{null >= observed}) / (1 + draws), never 0.
    """
    generator = np.random.default_rng(task.seed)
    draws = np.empty(task.null_draws)
    for index in range(task.null_draws):
        vectors = generator.standard_normal((len(labels), dimension))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        draws[index] = silhouette_score(vectors, labels)
    return {
        "draws": task.null_draws,
        "mean": float(draws.mean()),
        "sd": float(draws.std()),
        "p_value": float((1 + (draws >= observed).sum()) / (1 + task.null_draws)),
    }
