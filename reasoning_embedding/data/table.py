"""All rows of a run as one table: every distinct text once, rows as ids into the texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import nan
from pathlib import Path

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.errors import InputError

from .columns import Columns, file_columns, memory_columns
from .rows import BadRows, Row
from .sources import read_rows
from .texts import TextList, TextWriter


@dataclass(frozen=True)
class Ragged:
    """Integer lists of different lengths, end to end.

    Parameters
    ----------
    values : ndarray of shape (total,)
        The lists, one after another.
    offsets : ndarray of int64, shape (n + 1,)
        List ``i`` is ``values[offsets[i]:offsets[i + 1]]``.
    """

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.values[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class Table:
    """The rows of a run.

    Parameters
    ----------
    texts : sequence of (str, str)
        Distinct (prompt, text); a query carries its rendered prompt, a document the empty one.
    query : ndarray of int32, shape (n,)
        Text of each row's query.
    positives, negatives : Ragged
        Texts of each row's positives (at least one) and hard negatives (int32).
    source : ndarray of int16, shape (n,)
        Source of each row, an index into ``sources``.
    sources : list of str
        Names in order of first appearance.
    skipped : dict of str to int
        Records left out, by reason.
    fingerprint : str
        SHA-256 of the content in its order, hexadecimal.
    positive_scores, negative_scores : ndarray of float32, or None
        A teacher's score of each of ``positives.values`` and ``negatives.values``, NaN where a row has none;
        None if no row has any.
    """

    texts: Sequence[tuple[str, str]]
    query: np.ndarray
    positives: Ragged
    negatives: Ragged
    source: np.ndarray
    sources: list[str]
    skipped: dict[str, int]
    fingerprint: str
    positive_scores: np.ndarray | None = None
    negative_scores: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.query)

    def row(self, index: int) -> Row:
        """Return a row; its instruction is its query's prompt, as if the template were ``{instruction}``."""
        prompt, query = self.texts[self.query[index]]
        return Row(
            query,
            tuple(self.texts[text][1] for text in self.positives[index]),
            tuple(self.texts[text][1] for text in self.negatives[index]),
            prompt or None,
            self.sources[self.source[index]],
            _row_scores(self.positive_scores, self.positives.offsets, index),
            _row_scores(self.negative_scores, self.negatives.offsets, index),
        )


def load_table(data: config.Data) -> Table:
    """Read every source of a configuration.

    Parameters
    ----------
    data : config.Data
        Sources, the query template, what to do with bad rows, and the folder of a cache, where texts and rows
        are read from disk as they are asked for.

    Raises
    ------
    InputError
        If a source cannot be read, has no usable rows, or holds a bad row where ``bad_rows`` is
        ``stop``.
    SetupError
        If the Hub cannot be reached, or the cache cannot be written.
    """
    if data.cache_dir is not None:
        from .cache import cached_table

        return cached_table(data)
    return build_table(data)


def build_table(data: config.Data, folder: Path | None = None) -> Table:
    """Read every source of a configuration.

    Parameters
    ----------
    data : config.Data
        As in :func:`load_table`; its ``cache_dir`` plays no part.
    folder : Path, optional
        Receives texts and columns, which the table maps; absent: they are held in memory.

    Raises
    ------
    InputError, SetupError
        As in :func:`load_table`.
    """
    bad = BadRows(data.bad_rows)
    if folder is None:
        builder = _Builder(data.query_template, TextList(), memory_columns)
    else:
        builder = _Builder(data.query_template, TextWriter(folder), file_columns(folder))
    for row in read_rows(data, bad):
        builder.add(row)
    return builder.table(dict(bad.counts))


def require_scores(table: Table) -> None:
    """Check that a teacher has scored every text of every row that has hard negatives.

    Raises
    ------
    InputError
        If a score is missing, or no row has hard negatives to compare.
    """
    todo = 'give every row with hard negatives "pos_scores" and "neg_scores", or drop loss.distillation'
    hard = np.diff(table.negatives.offsets) > 0
    if not hard.any():
        raise InputError(
            "loss.distillation compares a positive with hard negatives; no row has any", todo=todo
        )
    unscored = np.full(len(table), table.positive_scores is None)
    for scores, texts in (
        (table.positive_scores, table.positives),
        (table.negative_scores, table.negatives),
    ):
        if scores is not None:
            unscored[np.repeat(np.arange(len(table)), np.diff(texts.offsets))[np.isnan(scores)]] = True
    if (missing := hard & unscored).any():
        raise InputError(
            f"loss.distillation needs a teacher's scores; {missing.sum()} of {len(table)} rows have none",
            where=f"data.sources ({table.sources[table.source[missing.argmax()]]})",
            todo=todo,
        )


#: Columns of a table and their types.
COLUMNS = {
    "query": np.int32,
    "source": np.int16,
    "positives": np.int32,
    "positive_offsets": np.int64,
    "negatives": np.int32,
    "negative_offsets": np.int64,
    "positive_scores": np.float32,
    "negative_scores": np.float32,
}
#: Rows whose numbers are held before they are written to their columns.
_ROWS = 4096


class _Builder:
    """Collects rows; holds each distinct text and prompt once."""

    def __init__(self, query_template: str, texts: TextList | TextWriter, columns: Columns) -> None:
        self._template = query_template
        self._prompts: dict[str | None, str] = {None: ""}
        self._texts = texts
        self._sources: dict[str, int] = {}
        self._columns = {name: columns(name, dtype) for name, dtype in COLUMNS.items()}
        self._held: dict[str, list] = {name: [] for name in COLUMNS}
        self._ends = [0, 0]
        self._scored = False
        for role in ("positive", "negative"):
            self._held[f"{role}_offsets"].append(0)

    def add(self, row: Row) -> None:
        if (prompt := self._prompts.get(row.instruction)) is None:
            # Not str.format: an instruction or template may hold braces of its own.
            prompt = self._template.replace("{instruction}", row.instruction or "")
            self._prompts[row.instruction] = prompt
        number, held = self._texts.add, self._held
        held["query"].append(number(prompt, row.query))
        held["positives"].extend([number("", text) for text in row.positives])
        held["negatives"].extend([number("", text) for text in row.negatives])
        self._ends[0] += len(row.positives)
        self._ends[1] += len(row.negatives)
        held["positive_offsets"].append(self._ends[0])
        held["negative_offsets"].append(self._ends[1])
        held["positive_scores"].extend(row.positive_scores or [nan] * len(row.positives))
        held["negative_scores"].extend(row.negative_scores or [nan] * len(row.negatives))
        self._scored |= bool(row.positive_scores or row.negative_scores)
        held["source"].append(self._sources.setdefault(row.source, len(self._sources)))
        if len(held["query"]) == _ROWS:
            self._flush()

    def _flush(self) -> None:
        for name, values in self._held.items():
            self._columns[name].write(values)
            values.clear()

    def table(self, skipped: dict[str, int]) -> Table:
        self._flush()
        texts, sources = self._texts.close(), list(self._sources)
        columns = {name: column.close() for name, column in self._columns.items()}
        query, source, *rest = columns.values()
        scores = rest[4:] if self._scored else []
        fingerprint = _fingerprint(texts, sources, (query, source, *rest[:4], *scores))
        positives, negatives = Ragged(*rest[:2]), Ragged(*rest[2:4])
        return Table(texts, query, positives, negatives, source, sources, skipped, fingerprint, *scores)


def _row_scores(scores: np.ndarray | None, offsets: np.ndarray, index: int) -> tuple[float, ...]:
    if scores is None:
        return ()
    own = scores[offsets[index] : offsets[index + 1]]
    return () if np.isnan(own).any() else tuple(float(f"{score:.7g}") for score in own.tolist())


def _fingerprint(texts: Sequence[tuple[str, str]], sources: list[str], arrays: tuple[np.ndarray, ...]) -> str:
    digest = hashlib.sha256()
    # One text at a time: there may be more of them than memory holds.
    for part in chain(chain.from_iterable(texts), sources):
        content = part.encode()
        # Lengths first, so that no two contents give the same bytes.
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    for values in arrays:
        digest.update(values.size.to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data)
    return digest.hexdigest()
