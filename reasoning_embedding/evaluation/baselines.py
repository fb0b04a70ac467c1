"""BM25: the lexical floor, a model like any other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import bm25s
import numpy as np
from datasets import Dataset
from mteb.models.model_meta import ModelMeta

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


class BM25Search:
    """BM25 as mteb's ``SearchProtocol``. Queries are searched without their instruction.

    Parameters
    ----------
    bm25 : BM25
        The parameters.
    meta : ModelMeta
        Name and revision that results are filed under.
    """

    def __init__(self, bm25: BM25, meta: ModelMeta) -> None:
        self.bm25 = bm25
        self._meta = meta
        self._ids: list[str] = []
        self._rows: dict[str, int] = {}
        self._retriever: bm25s.BM25 | None = None

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Name and revision that results are filed under."""
        return self._meta

    def index(self, corpus: Dataset, **kwargs: Any) -> None:
        """Index the documents; they replace those indexed before."""
        self._ids = list(corpus["id"])
        self._rows = {name: row for row, name in enumerate(self._ids)}
        titles = corpus["title"] if "title" in corpus.column_names else [""] * len(corpus)
        documents = [
            tokens(f"{title or ''} {text}") for title, text in zip(titles, corpus["text"], strict=True)
        ]
        self._retriever = _retriever(self.bm25, documents)

    def search(
        self,
        queries: Dataset,
        *,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> dict[str, dict[str, float]]:
        """Return query id -> document id -> score for the best `top_k` documents that share a token.

        Where `top_ranked` lists a query's candidates (reranking, excluded documents), only they are ranked.
        """
        positions = {name: index for index, name in enumerate(self._ids)} if top_ranked is not None else {}
        found = {}
        for name, text in zip(queries["id"], queries["text"], strict=True):
            candidates = None
            if top_ranked is not None:
                candidates = np.array([positions[one] for one in top_ranked.get(name, [])], dtype=np.int64)
            found[name] = self._search(tokens(text), top_k, candidates)
        return found

    def _search(self, query: list[str], top_k: int, candidates: np.ndarray | None) -> dict[str, float]:
        if self._retriever is None or not query:
            return {}
        scores = self._retriever.get_scores(query)
        if candidates is not None:
            only = np.zeros_like(scores)
            only[candidates] = scores[candidates]
            scores = only
        best = np.argsort(-scores, kind="stable")[:top_k]
        return {self._ids[i]: float(scores[i]) for i in best if scores[i] > 0}


def bm25_scorer(bm25: BM25, documents: Sequence[str]) -> Callable[[str], np.ndarray]:
    """Return a function from a query to its (n,) float32 scores of all documents."""
    retriever = _retriever(bm25, [tokens(text) for text in documents])

    def score(query: str) -> np.ndarray:
        words = tokens(query)
        if retriever is None or not words:
            return np.zeros(len(documents), np.float32)
        return retriever.get_scores(words)

    return score


def _retriever(bm25: BM25, documents: list[list[str]]) -> bm25s.BM25 | None:
    """Index tokenised documents; None where none of them has a token, so nothing can match."""
    if not any(documents):
        return None
    retriever = bm25s.BM25(k1=bm25.k1, b=bm25.b, method="lucene")
    retriever.index(documents, show_progress=False)
    return retriever
