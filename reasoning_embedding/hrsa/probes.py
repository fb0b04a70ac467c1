"""Probe sets: the texts two models are compared on."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.data import load_table
from reasoning_embedding.data.lines import read_text_lines
from reasoning_embedding.data.miniature_world import MiniatureWorld
from reasoning_embedding.data.readers import data_files, read_records
from reasoning_embedding.data.rows import RowProblem
from reasoning_embedding.errors import InputError

#: Fewer texts than this give neither intervals nor a split.
FEWEST = 10
#: Where a record keeps its chain of thought, in order of preference.
TRACE_FIELDS = ("trace", "solution", "reasoning", "answer")


@dataclass(frozen=True)
class ProbeSet:
    """Distinct texts, and their classes where they have any.

    Parameters
    ----------
    kind : str
        ``world``, ``text``, ``mix``, ``traces`` or ``data``.
    texts : list of str
        Without duplicates.
    labels : list of str or None
        One a text.
    hash : str
        SHA-256 of texts and labels, hexadecimal.
    """

    kind: str
    texts: list[str]
    labels: list[str] | None
    hash: str

    @property
    def classes(self) -> int:
        """Number of different labels; 0 without labels."""
        return len(set(self.labels or ()))


def load_probe(probe: config.Probe) -> ProbeSet:
    """Read the probe set a configuration names.

    Raises
    ------
    InputError
        If a file is missing or a record lacks its text or label (naming file and line), or if fewer
        than ten distinct texts remain.
    """
    if isinstance(probe, config.WorldProbe):
        found = _world(probe.seed)
    elif isinstance(probe, config.TextProbe):
        found = _texts(probe)
    elif isinstance(probe, config.MixProbe):
        found = _fields(probe.rows, "query", "source")
    elif isinstance(probe, config.TracesProbe):
        found = _fields(probe.path, probe.field or _trace_field(probe.path), None)
    else:
        found = _source(probe)
    distinct: dict[str, str | None] = {}
    for text, label in found:
        distinct.setdefault(text, label)
    if len(distinct) < FEWEST:
        raise InputError(
            f"the probe set has {len(distinct)} distinct texts, it needs {FEWEST}",
            where=f"probe (kind: {probe.kind})",
            todo="name a larger set of texts",
        )
    texts, labels = list(distinct), list(distinct.values())
    limit = None if isinstance(probe, config.WorldProbe) else probe.texts
    if limit is not None and len(texts) > limit:
        chosen = np.sort(np.random.default_rng(probe.seed).choice(len(texts), size=limit, replace=False))
        texts, labels = [texts[i] for i in chosen], [labels[i] for i in chosen]
    content = json.dumps([texts, labels], ensure_ascii=False).encode()
    known = [label for label in labels if label is not None]
    return ProbeSet(probe.kind, texts, known or None, hashlib.sha256(content).hexdigest())


def _world(seed: int) -> Iterator[tuple[str, str | None]]:
    world = MiniatureWorld(seed)
    for split in ("train", "heldout"):
        for question, document, relation in world.pairs(split):
            yield question, relation
            yield document, relation


def _texts(probe: config.TextProbe) -> Iterator[tuple[str, str | None]]:
    """Texts of lines, of a CSV or of records, by what the file is called."""
    name = probe.path.removesuffix(".gz")
    if name.endswith(".txt"):
        return _lines(probe)
    if name.endswith((".csv", ".tsv")):
        return _columns(probe, "\t" if name.endswith(".tsv") else ",")
    return _fields(probe.path, probe.text, probe.label)


def _lines(probe: config.TextProbe) -> Iterator[tuple[str, str | None]]:
    if probe.label is not None:
        raise InputError(
            "lines of text have no label", where=probe.path, todo="remove label, or give a CSV or JSONL"
        )
    for _, line in read_text_lines(_file(probe.path)):
        if line.strip():
            yield line.strip(), None


def _columns(probe: config.TextProbe, delimiter: str) -> Iterator[tuple[str, str | None]]:
    lines = (line for _, line in read_text_lines(_file(probe.path)))
    reader = csv.DictReader(lines, fieldnames=probe.columns, delimiter=delimiter)
    try:
        for record in reader:
            where = f"{probe.path}:{reader.line_num}"
            if None in record or None in record.values():
                raise InputError(
                    f"the row does not have {len(reader.fieldnames or ())} columns",
                    where=where,
                    todo="repair the row, or name the columns of a file without a header (columns)",
                )
            label = None if probe.label is None else str(_value(record, probe.label, where))
            yield _text(record, probe.text, where), label
    except csv.Error as error:
        where = f"{probe.path}:{reader.line_num}"
        raise InputError(f"not a row of a table ({error})", where=where, todo="repair the row") from error


def _file(path: str) -> Path:
    files = data_files(path)
    if len(files) > 1:
        raise InputError("this is a folder of several files", where=path, todo="name one of them")
    return files[0]


def _trace_field(path: str) -> str:
    """Field of the first record that holds its chain of thought."""
    for where, record in read_records(data_files(path)[0]):
        known = [name for name in TRACE_FIELDS if isinstance(record, dict) and record.get(name)]
        if isinstance(record, RowProblem):
            raise InputError(str(record), where=where, todo=record.todo)
        if known:
            return known[0]
        raise InputError(
            f"the record has none of {', '.join(TRACE_FIELDS)}",
            where=where,
            todo="name the field that holds the solution (probe.field)",
        )
    raise InputError("the file is empty", where=path)


def _source(probe: config.DataProbe) -> Iterator[tuple[str, str | None]]:
    """One text a row of a data source: its query, or its first positive."""
    table = load_table(config.Data(sources=[probe.source]))
    for row in range(len(table)):
        text = table.query[row] if probe.side == "query" else table.positives[row][0]
        yield table.texts[text][1], table.sources[table.source[row]]


def _fields(path: str, text: str, label: str | None) -> Iterator[tuple[str, str | None]]:
    """Text and label of each record of a file, or of each file of a folder."""
    for file in data_files(path):
        for where, record in read_records(file):
            if isinstance(record, RowProblem):
                raise InputError(str(record), where=where, todo=record.todo)
            if not isinstance(record, dict):
                raise InputError(
                    "the record is no object with fields", where=where, todo="write one JSON object a line"
                )
            yield _text(record, text, where), None if label is None else str(_value(record, label, where))


def _value(record: dict, field: str, where: str) -> object:
    if record.get(field) is None:
        raise InputError(
            f"the record has no field {field!r}",
            where=where,
            todo=f"name one of: {', '.join(map(str, record))}",
        )
    return record[field]


def _text(record: dict, field: str, where: str) -> str:
    value = _value(record, field, where)
    if isinstance(value, list) and field == "query" and value:
        value = value[-1]  # [instruction, text]
    if not isinstance(value, str) or not value.strip():
        raise InputError(
            f"field {field!r} is no text", where=where, todo="remove the record or fill the field"
        )
    return value
