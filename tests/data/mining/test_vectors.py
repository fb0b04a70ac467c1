"""Vectors on disk: made once, and gone on with after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasoning_embedding.data.mining.vectors import embed_texts
from reasoning_embedding.errors import InputError
from tests.factories import flip


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


def test_damaged_vectors_are_made_again(tmp_path: Path) -> None:
    """A byte of the vectors or of their record, a file cut short, a record of an older version."""
    pairs = [("a", "x" * i) for i in range(10)]
    seen: list[str] = []

    def encode(texts: Any, _: str) -> np.ndarray:
        seen.extend(texts)
        return np.array([[len(text), 1] for text in texts], np.float32)

    def again() -> tuple[int, list[str]]:
        seen.clear()
        said: list[str] = []
        vectors = embed_texts(tmp_path, "texts", pairs, encode, said.append, chunk=4)
        assert np.array_equal(vectors, wanted)
        return len(seen), [line for line in said if "embedded anew" in line]

    wanted = np.array(embed_texts(tmp_path, "texts", pairs, encode, lambda _: None, chunk=4))
    file, record = tmp_path / "texts.npy", tmp_path / "texts.json"
    assert again() == (0, [])
    flip(file, file.stat().st_size - 3)  # in the third part
    count, said = again()
    assert count == 2
    assert "text 8 and what follows" in said[0]
    flip(file, 128)
    assert again()[0] == 10
    for place in range(0, record.stat().st_size, 7):
        flip(record, place)
        assert again()[0] in (0, 10)
    for place in range(0, 128, 5):
        flip(file, place)
        again()
    file.write_bytes(file.read_bytes()[:100])
    assert again()[0] == 10
    record.write_text('{"done": 10}')
    assert again()[0] == 10
