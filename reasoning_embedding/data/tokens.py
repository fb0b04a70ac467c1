"""Tokens of every distinct text, made once and off the step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reasoning_embedding.errors import InputError
from reasoning_embedding.isolation import parallel_tokenizers

from .columns import ColumnWriter, map_column
from .ragged import Ragged

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Columns of a token store and their types.
_COLUMNS = {"tokens": np.int32, "offsets": np.int64, "prompt_lengths": np.int32}
#: Texts a call of the tokenizer: enough to use its threads, few enough to see progress.
_CHUNK = 2048


@dataclass(frozen=True)
class TokenStore(Ragged):
    """Token ids of texts, end to end.

    Parameters
    ----------
    values : ndarray of int32, shape (total,)
        Token ids of all texts, one text after another.
    offsets : ndarray of int64, shape (n + 1,)
        Text ``i`` is ``values[offsets[i]:offsets[i + 1]]``.
    prompt_lengths : ndarray of int32, shape (n,)
        Leading tokens of each text that belong to its prompt; less than the text's length.
    """

    prompt_lengths: np.ndarray


def tokenize(
    texts: Sequence[tuple[str, str]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    query_max_tokens: int,
    document_max_tokens: int,
    document_prompts: Collection[str] = ("",),
    progress: Callable[[int, int], None] | None = None,
    folder: Path | None = None,
) -> TokenStore:
    """Tokenize texts exactly as sentence-transformers does.

    Parameters
    ----------
    texts : sequence of (str, str)
        (prompt, text).
    tokenizer : PreTrainedTokenizerBase
        Sees prompt and text as one string; adds the special tokens it adds by default.
    query_max_tokens, document_max_tokens : int
        Longer texts are truncated; prompt and special tokens count.
    document_prompts : collection of str
        Prompts of documents, by default none at all; a text with another prompt is a query.
    progress : callable, optional
        Called with (texts done, texts in all).
    folder : Path, optional
        Receives the token ids, offsets and lengths of prompts as they are made; absent: they stay in memory.

    Raises
    ------
    InputError
        If a text has no tokens, truncation leaves nothing of a query but its prompt, or a limit has no
        room beside the special tokens.

    Notes
    -----
    A prompt's length is that of the lone prompt's tokens, less one where the last is special
    (``Transformer._get_prompt_length`` of sentence-transformers 6.2). Where a tokenizer merges across
    the boundary ("Query: " + "yes" has no more tokens than "Query: "), that rule would leave a one-word
    query without a token to pool; here its last token always remains.
    """
    _check_limits(tokenizer, query_max_tokens=query_max_tokens, document_max_tokens=document_max_tokens)
    known = {"": 0}
    values, offsets, prompt_lengths = (ColumnWriter(folder, name, dtype) for name, dtype in _COLUMNS.items())
    offsets.write([end := 0])
    unusable = _UnusableTexts()
    encode: Callable[[list[str], int], list[list[int]]] | None = None
    with parallel_tokenizers():
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            for prompt in {prompt for prompt, _ in chunk} - known.keys():
                known[prompt] = _prompt_length(prompt, tokenizer)
            prompts = np.array([known[prompt] for prompt, _ in chunk], np.int32)
            limits = np.array(
                [
                    document_max_tokens if prompt in document_prompts else query_max_tokens
                    for prompt, _ in chunk
                ]
            )
            encode = encode or chosen_encoder(tokenizer, ["".join(pair) for pair in chunk], int(limits[0]))
            ids = _token_ids(chunk, encode, limits)
            lengths = np.array([len(tokens) for tokens in ids], np.int64)
            unusable.find(chunk, lengths, prompts, limits)
            values.write(np.fromiter(itertools.chain.from_iterable(ids), np.int32, int(lengths.sum())))
            offsets.write(end + np.cumsum(lengths))
            prompt_lengths.write(np.minimum(prompts, lengths - 1))
            end += int(lengths.sum())
            if progress is not None:
                progress(start + len(chunk), len(texts))
    unusable.refuse()
    return TokenStore(values.close(), offsets.close(), prompt_lengths.close())


def open_tokens(folder: Path) -> TokenStore:
    """Return the tokens that :func:`tokenize` put into a folder."""
    return TokenStore(*(map_column(folder, name, dtype) for name, dtype in _COLUMNS.items()))


def _check_limits(tokenizer: PreTrainedTokenizerBase, **limits: int) -> None:
    # Below this the tokenizer silently does not truncate, or keeps special tokens only.
    special = tokenizer.num_special_tokens_to_add(pair=False)
    for name, limit in limits.items():
        if limit <= special:
            raise InputError(
                f"{limit} token{'s' if limit > 1 else ''} a text leave no room beside {special} special ones",
                where=f"data.{name}",
                todo=f"raise it above {special}",
            )


def _prompt_length(prompt: str, tokenizer: PreTrainedTokenizerBase) -> int:
    if not prompt:
        return 0
    tokens = tokenizer(prompt)["input_ids"]
    return len(tokens) - bool(tokens and tokens[-1] in tokenizer.all_special_ids)


def chosen_encoder(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], limit: int
) -> Callable[[list[str], int], list[list[int]]]:
    """Return the faster of two ways from (texts, limit) to token ids, if both give the same of these texts.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        transformers' own call also keeps where in the text each token stood, which no one asks for here.
    texts : list of str
        Some of those to come.
    limit : int
        Tokens at which they are cut.
    """

    def slow(texts: list[str], limit: int) -> list[list[int]]:
        return tokenizer(
            texts,
            truncation=True,
            max_length=limit,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return slow

    def fast(texts: list[str], limit: int) -> list[list[int]]:
        backend.enable_truncation(limit, direction=tokenizer.truncation_side)
        backend.no_padding()
        return [encoding.ids for encoding in backend.encode_batch_fast(texts)]

    return fast if slow(texts, limit) == fast(texts, limit) else slow


def _token_ids(
    chunk: Sequence[tuple[str, str]],
    encode: Callable[[list[str], int], list[list[int]]],
    limits: np.ndarray,
) -> list[list[int]]:
    ids: list[list[int]] = [[]] * len(chunk)
    for limit in np.unique(limits).tolist():
        places = np.flatnonzero(limits == limit).tolist()
        encoded = encode(["".join(chunk[place]) for place in places], limit)
        for place, tokens in zip(places, encoded, strict=True):
            ids[place] = tokens
    return ids


@dataclass
class _UnusableTexts:
    """Texts that no model can read: how many, and the first of each kind."""

    empty: int = 0
    cut: int = 0
    first_empty: str = ""
    first_cut: tuple[str, int, int] = ("", 0, 0)

    def find(
        self, texts: Sequence[tuple[str, str]], lengths: np.ndarray, prompts: np.ndarray, limits: np.ndarray
    ) -> None:
        if (empty := np.flatnonzero(lengths == 0)).size:
            self.first_empty = self.first_empty or texts[empty[0]][1]
            self.empty += empty.size
        # A query as long as its limit may have been cut, and a cut inside the prompt leaves nothing to pool.
        if (cut := np.flatnonzero((prompts >= lengths) & (lengths >= limits))).size:
            place = int(cut[0])
            if not self.cut:
                self.first_cut = texts[place][1], int(limits[place]), int(prompts[place])
            self.cut += cut.size

    def refuse(self) -> None:
        if self.empty:
            raise InputError(
                f"{self.empty} text{'s have' if self.empty > 1 else ' has'} no tokens",
                where=f"text {_shown(self.first_empty)}",
                todo="drop the row, or use a tokenizer that knows its characters",
            )
        if self.cut:
            text, limit, prompt = self.first_cut
            raise InputError(
                f"the prompt takes all {limit} tokens of {self.cut} quer{'ies' if self.cut > 1 else 'y'}",
                where=f"query {_shown(text)}",
                todo=f"raise data.query_max_tokens above {prompt}, or shorten the instruction",
            )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
