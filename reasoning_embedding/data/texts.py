"""Distinct texts, each held once: in memory, or in a file that is read as texts are asked for."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from reasoning_embedding.files import read_json_value

from .columns import ColumnWriter, map_column
from .numbering import Numbering

#: Texts read at a time when all are gone through, and columns' entries written at a time.
_CHUNK = 2048


class TextFile(Sequence[tuple[str, str]]):
    """Distinct (prompt, text) pairs of a folder that :class:`TextWriter` wrote.

    Parameters
    ----------
    folder : Path
        Holds ``texts.bin`` (UTF-8, end to end), ``text_ends.bin``, ``text_prompts.bin``, ``prompts.json``.

    Notes
    -----
    Texts are read, not mapped: a pass over all of them leaves no memory behind.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "texts.bin").open("rb", buffering=0)
        self._ends = map_column(folder, "text_ends", np.int64)
        self._prompt = map_column(folder, "text_prompts", np.int32)
        self._prompts: list[str] = read_json_value(folder / "prompts.json")

    def __len__(self) -> int:
        return len(self._prompt)

    @overload
    def __getitem__(self, index: int) -> tuple[str, str]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, str]]: ...
    def __getitem__(self, index: int | slice) -> tuple[str, str] | list[tuple[str, str]]:
        if isinstance(index, slice):
            first, last, step = index.indices(len(self))
            if step == 1:
                return self._read(first, max(first, last))
            return [self[place] for place in range(first, last, step)]
        place = range(len(self))[index]
        return self._read(place, place + 1)[0]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for start in range(0, len(self), _CHUNK):
            yield from self._read(start, min(start + _CHUNK, len(self)))

    def _read(self, first: int, last: int) -> list[tuple[str, str]]:
        ends = self._ends[first : last + 1].tolist()
        # A position of its own: ranks that were forked share the file.
        content = os.pread(self._file.fileno(), ends[-1] - ends[0], ends[0])
        return [
            (self._prompts[prompt], content[start - ends[0] : end - ends[0]].decode())
            for prompt, start, end in zip(self._prompt[first:last].tolist(), ends[:-1], ends[1:], strict=True)
        ]


class TextWriter:
    """Numbers texts by first appearance and writes each once.

    Parameters
    ----------
    folder : Path
        Receives the files of :class:`TextFile`.

    Notes
    -----
    Its memory grows neither with the texts nor with their number: see :class:`.numbering.Numbering`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = (folder / "texts.bin").open("wb", buffering=1 << 20)
        self._numbers = Numbering(folder)
        self._prompts: dict[str, int] = {}
        self._columns = (
            ColumnWriter(folder, "text_prompts", np.int32),
            ColumnWriter(folder, "text_ends", np.int64),
        )
        self._prompt, self._ends, self._end = array("i"), array("q", [0]), 0

    def add(self, prompt: str, text: str) -> int:
        """Return the number of a text, and write it where it is new."""
        content = text.encode()
        new = len(self._numbers)
        # No text holds NUL, so that no two pairs give the same bytes.
        number = self._numbers.number(b"%b\0%b" % (content, prompt.encode()))
        if number == new:
            if len(self._prompt) == _CHUNK:
                self._flush()
            self._prompt.append(self._prompts.setdefault(prompt, len(self._prompts)))
            self._end += len(content)
            self._ends.append(self._end)
            self._file.write(content)
        return number

    def _flush(self) -> None:
        """Write what is held."""
        for column, values in zip(self._columns, (self._prompt, self._ends), strict=True):
            column.write(values)
            del values[:]

    def close(self) -> TextFile:
        """Finish the files and return them for reading."""
        self._flush()
        self._file.close()
        self._numbers.close()
        for column in self._columns:
            column.close()
        (self._folder / "prompts.json").write_text(json.dumps(list(self._prompts)), encoding="utf-8")
        return TextFile(self._folder)


class TextList:
    """Numbers texts by first appearance in memory: the twin of :class:`TextWriter`."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}

    def add(self, prompt: str, text: str) -> int:
        """Return the number of a text."""
        return self._numbers.setdefault((prompt, text), len(self._numbers))

    def close(self) -> list[tuple[str, str]]:
        """Return the texts by number."""
        return list(self._numbers)
