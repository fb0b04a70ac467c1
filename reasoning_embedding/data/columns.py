"""Columns of numbers that grow at their end: in memory, or in a file that is mapped when it is whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Column(Protocol):
    """Numbers of one type that are written once, in order."""

    def write(self, values: npt.ArrayLike) -> None:
        """Add (k,) values at the end."""
        ...

    def close(self) -> np.ndarray:
        """Return all values, (n,)."""
        ...


#: Name and type -> an empty column.
Columns = Callable[[str, npt.DTypeLike], Column]


class MemoryColumn:
    """A column in memory: the twin of :class:`FileColumn`."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._parts = [np.zeros(0, dtype)]

    def write(self, values: npt.ArrayLike) -> None:
        """See :class:`Column`."""
        self._parts.append(np.array(values, self._parts[0].dtype))

    def close(self) -> np.ndarray:
        """See :class:`Column`."""
        return np.concatenate(self._parts)


class FileColumn:
    """A column in a file: what is written takes no memory."""

    def __init__(self, file: Path, dtype: npt.DTypeLike) -> None:
        self._path, self._dtype = file, np.dtype(dtype)
        self._file = file.open("wb")

    def write(self, values: npt.ArrayLike) -> None:
        """See :class:`Column`."""
        self._file.write(np.asarray(values, self._dtype).tobytes())

    def close(self) -> np.ndarray:
        """See :class:`Column`."""
        self._file.close()
        return map_column(self._path, self._dtype)


def memory_columns(name: str, dtype: npt.DTypeLike) -> Column:
    """Return an empty column in memory, whatever its name."""
    return MemoryColumn(dtype)


def file_columns(folder: Path) -> Columns:
    """Return what makes columns in a folder: ``<name>.bin`` each."""
    return lambda name, dtype: FileColumn(column_file(folder, name), dtype)


def column_file(folder: Path, name: str) -> Path:
    """Return where a column of a folder lies."""
    return folder / f"{name}.bin"


def map_column(file: Path, dtype: npt.DTypeLike) -> np.ndarray:
    """Return the numbers of a file, read from disk as they are asked for."""
    # An empty file cannot be mapped.
    return np.asarray(np.memmap(file, dtype, "r")) if file.stat().st_size else np.zeros(0, dtype)
