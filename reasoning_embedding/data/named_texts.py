"""Texts of a file one at a time, each with its id and its place: lines, or a column of records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from reasoning_embedding.errors import InputError

from .lines import read_text_lines
from .readers import data_files, is_data_file, read_records
from .rows import RowProblem, check_text

#: TextColumns that are ids and texts by themselves.
_IDS = ("_id", "id")
_TEXT, _TITLE = "text", "title"


class NamedText(NamedTuple):
    """A text, what it is called, and where it stands."""

    where: str
    id: str | int
    text: str


@dataclass(frozen=True)
class TextColumns:
    """The columns that are read of every record.

    Parameters
    ----------
    texts : tuple of str
        Joined by a space; all but the last, such as a title, may be absent from a record.
    id : str or None
        None: texts are called by their number, from 0 on.
    """

    texts: tuple[str, ...]
    id: str | None


@dataclass(frozen=True)
class TextSource:
    """Texts of JSON Lines, a JSON array, CSV, TSV, parquet or a data set's folder; of any other file its lines.

    Parameters
    ----------
    path : Path
        The file or folder.
    columns : tuple of str
        TextColumns to embed, joined by a space. Empty: ``text``, after the ``title`` where there is one (as retrieval tasks
        are read); else the only column that holds texts.
    id_column : str, optional
        Absent: ``_id`` or ``id`` where the first record has one, else texts are called by their number.
    """

    path: Path
    columns: tuple[str, ...] = ()
    id_column: str | None = None

    @property
    def has_columns(self) -> bool:
        """Whether it holds records, not lines."""
        return self.path.is_dir() or is_data_file(self.path.name)

    def chosen(self) -> TextColumns | None:
        """Return the columns that are read; None of a file of lines, and of one of plain strings.

        Raises
        ------
        InputError
            If nobody can tell which column holds the texts, or a named one is not there.
        """
        if not self.has_columns:
            if self.columns or self.id_column:
                raise InputError(
                    "a file of lines has no columns",
                    where=str(self.path.absolute()),
                    todo="leave the columns out, or give JSON Lines, CSV, TSV or parquet",
                )
            return None
        where, record = next(self._records(), (str(self.path), None))
        if record is None:
            return None
        if isinstance(record, RowProblem):
            raise _bad(where, record)
        if not isinstance(record, dict):
            if self.columns or self.id_column:
                raise InputError("it has no columns", where=where, todo="leave the columns out")
            return None
        return self._choose(where, record)

    def __iter__(self) -> Iterator[NamedText]:
        """Yield every text.

        Raises
        ------
        InputError
            If the file cannot be read, or a text is missing, empty or no text; names its place.
        """
        columns = self.chosen()
        records = self._records() if self.has_columns else self._lines()
        for number, (where, record) in enumerate(records):
            try:
                if isinstance(record, RowProblem):
                    raise record
                yield NamedText(where, *_named(record, columns, number))
            except RowProblem as problem:
                raise _bad(where, problem) from problem

    def _lines(self) -> Iterator[tuple[str, object]]:
        for number, line in read_text_lines(self.path):
            yield f"{self.path}:{number}", line.rstrip("\r\n")

    def _records(self) -> Iterator[tuple[str, object]]:
        for file in data_files(self.path):
            yield from read_records(file)

    def _choose(self, where: str, record: dict[str, object]) -> TextColumns:
        there = ", ".join(record)
        # A title may be absent from a record; id and text may not.
        for name in (*self.columns[-1:], self.id_column):
            if name is not None and name not in record:
                raise InputError(f"no column {name!r}", where=where, todo=f"it has {there}")
        key = self.id_column or next((name for name in _IDS if record.get(name) is not None), None)
        if self.columns:
            return TextColumns(self.columns, key)
        if _TEXT in record:
            return TextColumns((_TITLE, _TEXT), key)
        texts = [name for name, value in record.items() if isinstance(value, str) and name != key]
        if len(texts) != 1:
            raise InputError(
                f"which column holds the texts? It has {there or 'none'}",
                where=where,
                todo="name it with --column (twice for a title and a text)",
            )
        return TextColumns((texts[0],), key)


def _named(record: object, columns: TextColumns | None, number: int) -> tuple[str | int, str]:
    """Return the id and the text of a record."""
    if columns is None:
        return number, check_text(record, "text")
    if not isinstance(record, dict):
        raise RowProblem("the record is not a JSON object", "write objects of the same columns")
    *titles, last = columns.texts
    parts = [check_text(record[name], name) for name in titles if record.get(name)]
    text = " ".join([*parts, check_text(record.get(last), last)])
    if columns.id is None:
        return number, text
    key = record.get(columns.id)
    if isinstance(key, bool) or not isinstance(key, str | int) or key == "":
        raise RowProblem(
            f"{columns.id} is no id", "give every text a string or a whole number", f"found {key!r}"[:80]
        )
    return key, text


def _bad(where: str, problem: RowProblem) -> InputError:
    return InputError(str(problem), where=where, todo=problem.todo)
