"""What all tasks over local files share: metadata, fingerprints, the reading of tables."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mteb.abstasks.task_metadata import TaskMetadata

from reasoning_embedding.config.reading.suggestions import did_you_mean
from reasoning_embedding.data.lines import read_text_lines
from reasoning_embedding.errors import InputError
from reasoning_embedding.evaluation.instructions import LOCAL

SPLIT = "test"


class LocalTask:
    """Before a class of task of mteb: its data come with it."""

    data_loaded = True

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the data are there."""


def local_metadata(
    name: str, kind: str, fingerprint: str, *, main_score: str, instruction: str | None, description: str
) -> TaskMetadata:
    """Return the metadata of a task over local data.

    Parameters
    ----------
    name : str
        The task's name; mteb's result file is called after it.
    kind : str
        Type of task in mteb's words: ``Retrieval``, ``STS``, ``Classification``.
    fingerprint : str
        Stands as the data set's revision.
    main_score : str
        Name of the metric that represents the task.
    instruction : str or None
        What queries, or texts of a task without sides, are asked with.
    description : str
        One sentence.
    """
    prompt: Any = instruction or None
    if prompt and kind == "Retrieval":
        prompt = {"query": instruction}
    fields: dict[str, Any] = {
        "name": name,
        "description": description,
        "dataset": {"path": f"{LOCAL}{name}", "revision": fingerprint},
        "prompt": prompt,
        "type": kind,
        "category": "t2c" if kind == "Classification" else "t2t",
        "modalities": ["text"],
        "eval_splits": [SPLIT],
        "eval_langs": ["eng-Latn"],
        "main_score": main_score,
        "license": "not specified",
        "is_public": False,
    }
    return TaskMetadata(**fields)


def fingerprint_of(record: Any) -> str:
    """Return SHA-256 over what JSON can hold: equal data, equal fingerprint."""
    return hashlib.sha256(json.dumps(record, ensure_ascii=False).encode()).hexdigest()


def read_columns(path: Path, columns: tuple[str | int, ...]) -> Iterator[tuple[str, list[str]]]:
    """Yield (``file:line``, values of the columns) of every row of a table.

    Parameters
    ----------
    path : Path
        ``.csv`` with quotes as RFC 4180 has them, ``.tsv`` or ``.txt`` with tabs and no quotes; ``.gz`` too.
    columns : tuple of str or int
        Names, when the first row is a header; positions from 0, when there is none.

    Raises
    ------
    InputError
        For a file that is missing, empty or not UTF-8, a column that is not there, or a short row.
    """
    if not path.is_file():
        raise InputError("no such file", where=str(path), todo="give a .csv or .tsv file (.gz too)")
    tabs = Path(path.name.removesuffix(".gz")).suffix in (".tsv", ".txt")
    # Without quotes a tab file's text may hold any quote mark, as in the SemEval files.
    delimiter, quoting = ("\t", csv.QUOTE_NONE) if tabs else (",", csv.QUOTE_MINIMAL)
    rows = 0
    try:
        lines = (line for _, line in read_text_lines(path))
        reader = csv.reader(lines, strict=True, delimiter=delimiter, quoting=quoting)
        where = _positions(columns, reader, path)
        for row in reader:
            if not any(row):
                continue
            place = f"{path}:{reader.line_num}"
            if len(row) <= max(where):
                raise InputError(f"{len(row)} columns where {max(where) + 1} are needed", where=place)
            rows += 1
            yield place, [row[position] for position in where]
    except csv.Error as error:
        raise InputError(
            f"cannot be read on after {rows} rows: {error}", where=str(path), todo="save it again as UTF-8"
        ) from error
    if not rows:
        raise InputError("the table has no rows", where=str(path))


def _positions(columns: tuple[str | int, ...], reader: Iterator[list[str]], path: Path) -> list[int]:
    if below := [column for column in columns if isinstance(column, int) and column < 0]:
        raise InputError(f"position {below[0]} is below 0", where=str(path), todo="the first column is 0")
    if all(isinstance(column, int) for column in columns):
        return [int(column) for column in columns]
    header = next(reader, [])
    found = []
    for column in columns:
        if isinstance(column, int):
            found.append(column)
        elif column in header:
            found.append(header.index(column))
        else:
            raise InputError(
                f"no column {column!r}{did_you_mean(column, header)}",
                where=f"{path}:1",
                todo=f"columns there: {', '.join(header)}",
            )
    return found
