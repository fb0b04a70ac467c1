"""Rows about animals, and a random checkpoint that can embed them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from reasoning_embedding import config
from tests.factories import write_lines


def write_animal_rows(file: Path) -> Path:
    """Write forty questions about animals; each answer shares words with the next ones."""
    names = "red green blue old new big small fast slow hot cold light dark".split()
    texts = [f"the {names[i % 13]} cat sees {i % 10} birds and {i} dogs" for i in range(40)]
    records = [
        {"query": ["find", f"who sees {i} dogs {names[i % 13]}"], "pos": [text], "neg": [texts[i - 1]]}
        for i, text in enumerate(texts)
    ]
    return write_lines(file, records)


def save_checkpoint(folder: Path, tokenizer: Path) -> Path:
    """Write a random embedder with its provenance: a checkpoint of ours."""
    from benchmarks.random_model import save_random_model
    from reasoning_embedding.backbones.load import load_tokenizer

    shape = config.Architecture(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
    )
    save_random_model(folder / "step-000000", shape, load_tokenizer(str(tokenizer)), max_tokens=64)
    return folder / "step-000000"


def read(path: Path) -> list[dict[str, Any]]:
    """Records of a file of JSON Lines, compressed or not."""
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.splitlines()]
