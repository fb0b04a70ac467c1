"""Encoders without a model, for tests of evaluation."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np


class HashingEncoder:
    """Character trigrams hashed into a random projection; records what it was asked to encode."""

    dimension = 64

    def __init__(self, seed: int = 0) -> None:
        self.projection = np.random.default_rng(seed).normal(size=(4096, self.dimension))
        self.calls: list[tuple[str, list[str]]] = []

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        max_tokens: int | None = None,
        pack_tokens: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        self.calls.append((prompt, list(texts)))
        rows = np.zeros((len(texts), 4096))
        for row, text in zip(rows, texts, strict=True):
            padded = f"  {text} "
            for start in range(len(padded) - 2):
                row[zlib.crc32(padded[start : start + 3].encode()) % 4096] += 1
        return self.finish(rows @ self.projection)

    @staticmethod
    def finish(vectors: np.ndarray) -> np.ndarray:
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class TableEncoder(HashingEncoder):
    """Documents are axes; a query lies so that it ranks them as its table says."""

    def __init__(self, documents: list[str], rankings: dict[str, list[str]]) -> None:
        super().__init__()
        self.dimension = len(documents)
        self.documents, self.rankings = documents, rankings

    def encode(self, texts: Sequence[str], **kwargs: object) -> np.ndarray:
        vectors = np.zeros((len(texts), self.dimension))
        for vector, text in zip(vectors, texts, strict=True):
            if text in self.documents:
                vector[self.documents.index(text)] = 1
            else:
                for rank, document in enumerate(self.rankings[text]):
                    vector[self.documents.index(document)] = self.dimension - rank
        return self.finish(vectors)
