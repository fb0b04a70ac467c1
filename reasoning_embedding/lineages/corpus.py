"""Pre-training text as rows of token ids, a function of (seed, step) alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from reasoning_embedding.config.lineage import PretrainStage, TextCorpus, WorldCorpus
from reasoning_embedding.data.miniature_world import MiniatureWorld
from reasoning_embedding.data.readers import read_records
from reasoning_embedding.errors import InputError

from .word_problems import word_problems

#: Texts of the world's mix that a BPE tokenizer is trained on, where someone asks for one.
_WORLD_SAMPLE = 20_000
#: Texts tokenised at a time.
_SLICE = 2048


class Stream(Protocol):
    """Rows for any step, independent of the steps before it."""

    def batch(self, step: int) -> np.ndarray:
        """Return the (batch_size, sequence_length) int64 token ids of a step, counted from 1."""
        ...


def corpus_texts(corpus: WorldCorpus | TextCorpus, seed: int) -> Iterator[str]:
    """Yield the texts of a corpus; of the world's endless mix, a sample.

    Raises
    ------
    InputError
        If a file is missing, a line is no JSON object with a non-empty ``text``, or nothing is found.
    """
    if isinstance(corpus, WorldCorpus):
        yield from MiniatureWorld().pretraining_texts(np.random.default_rng([seed, 0]), corpus, _WORLD_SAMPLE)
        return
    count = 0
    for name in corpus.paths:
        for where, record in read_records(existing_file(name)):
            todo = 'each line reads {"text": "..."}'
            if not isinstance(record, dict) or "text" not in record:
                raise InputError("not a JSON object with a 'text' field", where=where, todo=todo)
            if not isinstance(text := record["text"], str):
                raise InputError("'text' is no string", where=where, todo=todo)
            if text:
                count += 1
                yield text
    if not count:
        raise InputError("the corpus is empty", where=", ".join(corpus.paths), todo="name files with texts")
    yield from word_problems(corpus.word_problems, seed)


def existing_file(name: str) -> Path:
    """Return the path of a corpus file.

    Raises
    ------
    InputError
        If there is no such file.
    """
    path = Path(name)
    if not path.is_file():
        raise InputError("no such file", where=name, todo="check corpus.paths; they are relative to here")
    return path


def open_stream(stage: PretrainStage, tokenizer: PreTrainedTokenizerBase) -> Stream:
    """Return the rows of a stage's corpus."""
    if isinstance(stage.corpus, WorldCorpus):
        return WorldStream(stage, stage.corpus, tokenizer)
    return PackedStream(stage, stage.corpus, tokenizer)


class WorldStream:
    """Fresh draws of the world's mix for every step.

    Each row begins with the beginning of a text, as prompts do, and is cut at the sequence length.
    """

    def __init__(self, stage: PretrainStage, corpus: WorldCorpus, tokenizer: PreTrainedTokenizerBase) -> None:
        self._stage, self._corpus, self._tokenizer = stage, corpus, tokenizer
        self._world = MiniatureWorld()

    def batch(self, step: int) -> np.ndarray:
        """Return the rows of a step."""
        rows, length = self._stage.batch_size, self._stage.sequence_length
        rng = np.random.default_rng([self._stage.seed, step])
        out = np.empty((rows, length), dtype=np.int64)
        row, filled = 0, 0
        while True:
            texts = self._world.pretraining_texts(rng, self._corpus, rows * length // 5)
            for ids in self._tokenizer(texts, add_special_tokens=False)["input_ids"]:
                take = min(len(ids), length - filled)
                out[row, filled : filled + take] = ids[:take]
                filled += take
                if filled == length:
                    row, filled = row + 1, 0
                    if row == rows:
                        return out


class PackedStream:
    """A fixed corpus laid end to end, the end token after each text, and cut into rows.

    Every epoch visits all rows once, in an order of its own.
    """

    def __init__(self, stage: PretrainStage, corpus: TextCorpus, tokenizer: PreTrainedTokenizerBase) -> None:
        self._seed, self._rows = stage.seed, stage.batch_size
        ids = _tokenise(corpus_texts(corpus, stage.seed), tokenizer)
        count = len(ids) // stage.sequence_length
        if count < stage.batch_size:
            raise InputError(
                f"the corpus fills {count} rows of {stage.sequence_length} tokens, a batch asks for "
                f"{stage.batch_size}",
                where=", ".join(corpus.paths),
                todo="name more text, or lower batch_size or sequence_length",
            )
        self._ids = ids[: count * stage.sequence_length].reshape(count, stage.sequence_length)
        self._per_epoch = count // stage.batch_size
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def batch(self, step: int) -> np.ndarray:
        """Return the rows of a step."""
        epoch, index = divmod(step - 1, self._per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self._seed, epoch]).permutation(len(self._ids)))
        chosen = self._order[1][index * self._rows : (index + 1) * self._rows]
        return self._ids[chosen].astype(np.int64)


def _tokenise(texts: Iterator[str], tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    parts: list[np.ndarray] = []
    pending: list[str] = []

    def flush() -> None:
        end = [tokenizer.eos_token_id]
        for ids in tokenizer(pending, add_special_tokens=False, verbose=False)["input_ids"]:
            parts.append(np.array(ids + end, dtype=np.int32))
        pending.clear()

    for text in texts:
        pending.append(text)
        if len(pending) == _SLICE:
            flush()
    if pending:
        flush()
    return np.concatenate(parts)
