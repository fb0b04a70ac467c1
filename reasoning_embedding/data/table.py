"""All rows of a run as one table: every distinct text once, rows as ids into the texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json

from .columns import ColumnWriter, map_column
from .ragged import Ragged
from .rows import BadRows, Row, written_scores
from .sources import read_rows
from .texts import TextFile, TextList, TextWriter


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
    notes : list of str
        What reading decided by itself, a sentence each: names of columns, pairs of too low a score.
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
    notes: Sequence[str] = ()

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


def build_table(
    data: config.Data, folder: Path | None = None, prompts: config.Prompts | None = None
) -> Table:
    """Read every source of a configuration.

    Parameters
    ----------
    data : config.Data
        Sources, the query template, and what to do with bad rows; its ``cache_dir`` plays no part.
    folder : Path, optional
        Receives texts and columns, where :func:`open_table` finds them again; absent: they stay in memory.
    prompts : config.Prompts, optional
        What is put before texts beside the instructions of the rows.

    Raises
    ------
    InputError
        If a source cannot be read, has no usable rows, or holds a bad row where ``bad_rows`` is
        ``stop``.
    SetupError
        If the Hub cannot be reached.
    """
    bad = BadRows(data.bad_rows)
    builder = _Builder(data.query_template, folder, prompts or config.Prompts())
    for row in read_rows(data, bad):
        builder.add(row)
    return builder.table(dict(bad.counts), list(bad.notes))


def open_table(folder: Path) -> Table:
    """Return the table that :func:`build_table` put into a folder; texts and rows are read as they are asked for."""
    record = read_json(folder / _RECORD)
    columns = {
        name: map_column(folder, name, dtype)
        for name, dtype in _COLUMNS.items()
        if record["scored"] or name not in _SCORES
    }
    return _table(TextFile(folder), columns, record)


def require_scores(table: Table) -> None:
    """Check that a teacher has scored every text of every row that has hard negatives.

    Raises
    ------
    InputError
        If a score is missing, or no row has hard negatives to compare.
    """
    todo = 'give every row with hard negatives "pos_scores" and "neg_scores", or drop loss.distillation'
    hard = table.negatives.lengths > 0
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
            unscored[texts.owners[np.isnan(scores)]] = True
    if (missing := hard & unscored).any():
        raise InputError(
            f"loss.distillation needs a teacher's scores; {missing.sum()} of {len(table)} rows have none",
            where=f"data.sources ({table.sources[table.source[missing.argmax()]]})",
            todo=todo,
        )


#: Columns of a table and their types.
_COLUMNS = {
    "query": np.int32,
    "source": np.int16,
    "positives": np.int32,
    "positive_offsets": np.int64,
    "negatives": np.int32,
    "negative_offsets": np.int64,
    "positive_scores": np.float32,
    "negative_scores": np.float32,
}
_SCORES = ("positive_scores", "negative_scores")
#: What the columns of a folder do not say.
_RECORD = "table.json"
#: Rows whose numbers are held before they are written to their columns.
_ROWS = 4096


class _Builder:
    """Collects rows; holds each distinct text and prompt once."""

    def __init__(self, query_template: str, folder: Path | None, prompts: config.Prompts) -> None:
        self._template, self._folder, self._prompts = query_template, folder, prompts
        self._filled: dict[str, str] = {}
        self._texts = TextList() if folder is None else TextWriter(folder)
        self._sources: dict[str, int] = {}
        self._columns = {name: ColumnWriter(folder, name, dtype) for name, dtype in _COLUMNS.items()}
        self._held: dict[str, list] = {name: [] for name in _COLUMNS}
        self._ends = [0, 0]
        self._scored = False
        for role in ("positive", "negative"):
            self._held[f"{role}_offsets"].append(0)

    def add(self, row: Row) -> None:
        prompt, before_documents = self._query_prompt(row), self._document_prompt(row.source)
        number, held = self._texts.add, self._held
        held["query"].append(number(prompt, row.query))
        held["positives"].extend([number(before_documents, text) for text in row.positives])
        held["negatives"].extend([number(before_documents, text) for text in row.negatives])
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

    def _query_prompt(self, row: Row) -> str:
        of_source = self._prompts.sources.get(row.source)
        if of_source is not None and of_source.query is not None:
            return of_source.query
        if row.instruction is None:
            return self._prompts.query or ""
        if (prompt := self._filled.get(row.instruction)) is None:
            # Not str.format: an instruction or template may hold braces of its own.
            prompt = self._template.replace("{instruction}", row.instruction)
            self._filled[row.instruction] = prompt
        return prompt

    def _document_prompt(self, source: str) -> str:
        of_source = self._prompts.sources.get(source)
        if of_source is not None and of_source.document is not None:
            return of_source.document
        return self._prompts.document or ""

    def _flush(self) -> None:
        for name, values in self._held.items():
            self._columns[name].write(values)
            values.clear()

    def table(self, skipped: dict[str, int], notes: list[str]) -> Table:
        self._flush()
        texts, sources = self._texts.close(), list(self._sources)
        columns = {name: column.close() for name, column in self._columns.items()}
        if not self._scored:
            for name in _SCORES:
                del columns[name]
                if self._folder is not None:
                    (self._folder / f"{name}.bin").unlink()
        record: dict[str, Any] = {"sources": sources, "skipped": skipped, "notes": notes}
        record["fingerprint"] = _fingerprint(texts, sources, columns)
        if self._folder is not None:
            content = json.dumps({**record, "scored": self._scored})
            (self._folder / _RECORD).write_text(content, encoding="utf-8")
        return _table(texts, columns, record)


def _table(
    texts: Sequence[tuple[str, str]], columns: Mapping[str, np.ndarray], record: Mapping[str, Any]
) -> Table:
    return Table(
        texts,
        columns["query"],
        Ragged(columns["positives"], columns["positive_offsets"]),
        Ragged(columns["negatives"], columns["negative_offsets"]),
        columns["source"],
        record["sources"],
        record["skipped"],
        record["fingerprint"],
        columns.get("positive_scores"),
        columns.get("negative_scores"),
        record.get("notes", ()),
    )


def _row_scores(scores: np.ndarray | None, offsets: np.ndarray, index: int) -> tuple[float, ...]:
    if scores is None:
        return ()
    own = scores[offsets[index] : offsets[index + 1]]
    return () if np.isnan(own).any() else written_scores(own)


def _fingerprint(
    texts: Sequence[tuple[str, str]], sources: list[str], columns: Mapping[str, np.ndarray]
) -> str:
    digest = hashlib.sha256()
    # One text at a time: there may be more of them than memory holds.
    for part in chain(chain.from_iterable(texts), sources):
        content = part.encode()
        # Lengths first, so that no two contents give the same bytes.
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    for values in columns.values():
        digest.update(values.size.to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data)
    return digest.hexdigest()
