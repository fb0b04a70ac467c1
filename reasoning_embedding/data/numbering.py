"""Numbers of distinct keys by first appearance, in files: the memory they take is the system's to take back."""

from __future__ import annotations

import mmap
from hashlib import blake2b
from pathlib import Path
from struct import calcsize
from typing import Literal

_FIRST = 1024


class _MappedIntegers:
    """Integers of a new file, first `count` zeros, read and written at any place; `typecode` is that of ``struct``."""

    def __init__(self, file: Path, typecode: Literal["i", "Q"], count: int) -> None:
        self._path = file
        self._typecode: Literal["i", "Q"] = typecode
        self._file = file.open("w+b")
        self._map(count)

    def _map(self, count: int) -> None:
        size = count * calcsize(self._typecode)
        self._file.truncate(size)
        self._mapped = mmap.mmap(self._file.fileno(), size)
        self.view = memoryview(self._mapped).cast(self._typecode)

    def _unmap(self) -> None:
        self.view.release()
        self._mapped.close()

    def grow(self, count: int) -> None:
        """Make room for `count` integers; those that are there stay."""
        self._unmap()
        self._map(count)

    def clear(self, count: int) -> None:
        """Make room for `count` integers, all 0."""
        self._unmap()
        self._file.truncate(0)
        self._map(count)

    def remove(self) -> None:
        """Remove the file."""
        self._unmap()
        self._file.close()
        self._path.unlink()


class Numbering:
    """Numbers keys from 0 by first appearance.

    Parameters
    ----------
    folder : Path
        Holds the tables, two files, until :meth:`close`.

    Notes
    -----
    A key is known by 128 bits of BLAKE2b in a table of open addressing: 24 to 32 bytes of a mapped file a key,
    whatever its length, and no memory of the process.
    """

    def __init__(self, folder: Path) -> None:
        self._count = 0
        self._digests = _MappedIntegers(folder / "digests.tmp", "Q", _FIRST)
        self._slots = _MappedIntegers(folder / "slots.tmp", "i", _FIRST)  # number + 1; 0: free

    def __len__(self) -> int:
        return self._count

    def number(self, key: bytes) -> int:
        """Return the number of a key; it is ``len(self) - 1`` afterwards where the key is new."""
        digest = blake2b(key, digest_size=16).digest()
        low, high = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
        slot = self._slot(low, high)
        if known := self._slots.view[slot]:
            return known - 1
        number = self._count
        self._digests.view[2 * number], self._digests.view[2 * number + 1] = low, high
        self._count = self._slots.view[slot] = number + 1
        if 2 * self._count >= len(self._slots.view):
            self._grow()
        return number

    def close(self) -> None:
        """Remove the tables."""
        self._digests.remove()
        self._slots.remove()

    def _slot(self, low: int, high: int) -> int:
        """Where a digest stands, or the free slot where it would."""
        slots, digests = self._slots.view, self._digests.view
        mask = len(slots) - 1
        slot = low & mask
        while (number := slots[slot]) and (digests[2 * number - 2] != low or digests[2 * number - 1] != high):
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        count = 2 * len(self._slots.view)
        self._digests.grow(count)
        self._slots.clear(count)
        slots, mask = self._slots.view, count - 1
        for number, low in enumerate(self._digests.view[: 2 * self._count : 2], start=1):
            slot = low & mask
            while slots[slot]:
                slot = (slot + 1) & mask
            slots[slot] = number
