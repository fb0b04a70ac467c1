"""Vectors on disk: made once, and gone on with after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasoning_embedding.data.mining.vectors import embed_texts
from reasoning_embedding.errors import InputError


def test_vectors_go_on_where_they_stopped(tmp_path: Path) -> None:
    pairs = [("a" if i % 3 else "b", "x" * i) for i in range(10)]
    seen: list[str] = []

    def encode(texts: Any, prompt: str) -> np.ndarray:
        seen.extend(texts)
        if len(seen) > 7 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        return np.array([[len(text), ord(prompt)] for text in texts], np.float32)

    with pytest.raises(KeyboardInterrupt):
        embed_texts(tmp_path, "texts", pairs, encode, print, chunk=4)
    (tmp_path / "again").touch()
    seen.clear()
    vectors = embed_texts(tmp_path, "texts", pairs, encode, print, chunk=4)
    assert vectors.tolist() == [[len(text), ord(prompt)] for prompt, text in pairs]
    assert len(seen) == 6
    with pytest.raises(InputError, match="not finite"):
        embed_texts(tmp_path, "bad", pairs, lambda texts, _: np.full((len(texts), 2), np.nan), print)
