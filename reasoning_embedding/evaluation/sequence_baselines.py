"""What number sequences score without a model: lexical, random and hand-made features."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from .sequence_texts import Sequences, is_prime

#: Dimension of the random baseline, that of common small embedders.
RANDOM_DIMENSION = 384


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
