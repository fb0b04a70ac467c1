"""BM25 as mteb's search: the lexical floor, a model like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import bm25s
import numpy as np
from datasets import Dataset
from mteb.models.model_meta import ModelMeta

from reasoning_embedding.data.mining.bm25 import BM25, bm25_index, tokens


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
        self._retriever = bm25_index(self.bm25, documents)

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
        found = {}
        for name, text in zip(queries["id"], queries["text"], strict=True):
            candidates = None
            if top_ranked is not None:
                candidates = np.array([self._rows[one] for one in top_ranked.get(name, [])], dtype=np.int64)
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
