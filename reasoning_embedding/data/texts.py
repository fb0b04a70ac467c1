"""Distinct texts, each held once: in memory, or in a file that is read as texts are asked for."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import overload

import numpy as np

#: Texts read at a time when all are gone through.
_CHUNK = 2048


class TextFile(Sequence[tuple[str, str]]):
    """Distinct (prompt, text) pairs of a folder that :class:`TextWriter` wrote.

    Parameters
    ----------
    folder : Path
        Holds ``texts.bin`` (UTF-8, end to end), ``text_ends.npy``, ``text_prompts.npy``, ``prompts.json``.

    Notes
    -----
    Texts are read, not mapped: a pass over all of them leaves no memory behind.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "texts.bin").open("rb", buffering=0)
        self._ends = np.load(folder / "text_ends.npy", mmap_mode="r")
        self._prompt = np.load(folder / "text_prompts.npy", mmap_mode="r")
        self._prompts: list[str] = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))

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
        place = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= place < len(self):
            raise IndexError(index)
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
    A text is known by 128 bits of BLAKE2b in a table of open addressing: about 30 bytes of memory a text,
    whatever its length.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = (folder / "texts.bin").open("wb", buffering=1 << 20)
        self._prompts: dict[str, int] = {}
        self._prompt, self._ends = array("i"), array("q", [0])
        self._low, self._high = array("Q"), array("Q")
        self._slots = array("i", [-1]) * 1024

    def __len__(self) -> int:
        return len(self._low)

    def add(self, prompt: str, text: str) -> int:
        """Return the number of a text, and write it where it is new."""
        content = text.encode()
        # No text holds NUL, so that no two pairs give the same bytes.
        key = blake2b(b"%b\0%b" % (content, prompt.encode()), digest_size=16).digest()
        low, high = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
        slot = self._slot(low, high)
        if (known := self._slots[slot]) >= 0:
            return known
        number = len(self)
        self._slots[slot] = number
        self._low.append(low)
        self._high.append(high)
        self._prompt.append(self._prompts.setdefault(prompt, len(self._prompts)))
        self._ends.append(self._ends[-1] + len(content))
        self._file.write(content)
        if 2 * len(self) > len(self._slots):
            self._grow()
        return number

    def close(self) -> TextFile:
        """Finish the files and return them for reading."""
        self._file.close()
        np.save(self._folder / "text_ends.npy", np.array(self._ends, np.int64))
        np.save(self._folder / "text_prompts.npy", np.array(self._prompt, np.int32))
        (self._folder / "prompts.json").write_text(json.dumps(list(self._prompts)), encoding="utf-8")
        return TextFile(self._folder)

    def _slot(self, low: int, high: int) -> int:
        """Where a digest stands, or the free slot where it would."""
        slots, mask = self._slots, len(self._slots) - 1
        slot = low & mask
        while (number := slots[slot]) >= 0 and (self._low[number] != low or self._high[number] != high):
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        self._slots = array("i", [-1]) * (2 * len(self._slots))
        slots, mask = self._slots, len(self._slots) - 1
        for number, low in enumerate(self._low):
            slot = low & mask
            while slots[slot] >= 0:
                slot = (slot + 1) & mask
            slots[slot] = number


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
