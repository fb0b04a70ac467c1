"""Lengths of the texts of a table, in tokens where a tokenizer is named."""

from __future__ import annotations

from itertools import islice
from typing import Literal

import numpy as np

from reasoning_embedding.data import Table

_TEXTS = 4096


def text_lengths(
    table: Table, tokenizer: str | None, otherwise: Literal["words", "characters"]
) -> tuple[np.ndarray, str]:
    """Return the length of each text, (n,) int64, and its unit.

    Parameters
    ----------
    table : Table
        Prompts do not count.
    tokenizer : str or None
        A folder or Hub id: lengths are tokens, special ones included.
    otherwise : {"words", "characters"}
        The unit without a tokenizer; words are what white space separates.

    Raises
    ------
    InputError
        If there is no such tokenizer.
    """
    texts = (text for _, text in table.texts)
    if tokenizer is None:
        count = len if otherwise == "characters" else lambda text: len(text.split())
        return np.fromiter((count(text) for text in texts), np.int64, len(table.texts)), otherwise
    from reasoning_embedding.backbones.load import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    lengths = np.zeros(len(table.texts), np.int64)
    for start in range(0, len(lengths), _TEXTS):
        chunk = list(islice(texts, _TEXTS))
        ids = loaded(chunk, return_attention_mask=False, verbose=False)["input_ids"]
        lengths[start : start + len(chunk)] = [len(tokens) for tokens in ids]
    return lengths, "tokens"
