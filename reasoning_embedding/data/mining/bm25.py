"""BM25: scores of documents by the words they share with a query."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import bm25s
import numpy as np

_TOKEN = re.compile(r"[a-z0-9]+")


def tokens(text: str) -> list[str]:
    """Return runs of ASCII letters and digits in lower case; no stemming, no stop words."""
    return _TOKEN.findall(text.lower())


@dataclass(frozen=True)
class BM25:
    """BM25 with the inverse document frequency of Lucene.

    Parameters
    ----------
    k1 : float
        Saturation of a term's frequency, from 0.
    b : float
        Normalisation by document length, 0 to 1.

    Notes
    -----
    score(q, d) = sum over tokens t of q of
    ln(1 + (N - n_t + 0.5) / (n_t + 0.5)) f / (f + k1 (1 - b + b |d| / mean |d|)),
    with f the frequency of t in d, n_t the documents that hold t (Robertson and Zaragoza 2009; the idf of
    Lucene; Kamphuis et al. 2020 compare the variants). k1 = 0.9, b = 0.4 are the defaults of Anserini.
    """

    k1: float = 0.9
    b: float = 0.4

    @property
    def revision(self) -> str:
        """What decides its scores: variant and parameters."""
        return f"lucene-k1-{self.k1:g}-b-{self.b:g}"


def bm25_scorer(bm25: BM25, documents: Sequence[str]) -> Callable[[str], np.ndarray]:
    """Return a function from a query to its (n,) float32 scores of all documents."""
    retriever = bm25_index(bm25, [tokens(text) for text in documents])

    def score(query: str) -> np.ndarray:
        words = tokens(query)
        if retriever is None or not words:
            return np.zeros(len(documents), np.float32)
        return retriever.get_scores(words)

    return score


def bm25_index(bm25: BM25, documents: list[list[str]]) -> bm25s.BM25 | None:
    """Index tokenised documents; None where none of them has a token, so nothing can match."""
    if not any(documents):
        return None
    retriever = bm25s.BM25(k1=bm25.k1, b=bm25.b, method="lucene")
    retriever.index(documents, show_progress=False)
    return retriever
