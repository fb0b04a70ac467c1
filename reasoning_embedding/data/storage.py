"""Where what is made of data is put: in memory, or in a folder from which it is read as it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Storage:
    """A place for columns of numbers.

    Parameters
    ----------
    folder : Path or None
        Holds ``<name>.bin`` for each column, end to end; None: they stay in memory.
    """

    folder: Path | None = None

    def column(self, name: str, dtype: npt.DTypeLike) -> ColumnWriter:
        """Return an empty column."""
        return ColumnWriter(dtype, None if self.folder is None else self.folder / f"{name}.bin")


#: Nothing outlives the process.
MEMORY = Storage()


class ColumnWriter:
    """Numbers of one type that are written once, in order.

    Parameters
    ----------
    dtype : dtype
        Their type.
    file : Path or None
        Receives them, so that what is written takes no memory; None: they are held.
    """

    def __init__(self, dtype: npt.DTypeLike, file: Path | None) -> None:
        self._dtype, self._path = np.dtype(dtype), file
        self._file = None if file is None else file.open("wb")
        self._parts = [np.zeros(0, dtype)]

    def write(self, values: npt.ArrayLike) -> None:
        """Add (k,) values at the end."""
        if self._file is None:
            self._parts.append(np.array(values, self._dtype))
        else:
            self._file.write(np.asarray(values, self._dtype).tobytes())

    def close(self) -> np.ndarray:
        """Return all values, (n,): those of a file are mapped."""
        if self._file is None or self._path is None:
            return np.concatenate(self._parts)
        self._file.close()
        return map_column(self._path.parent, self._path.stem, self._dtype)


def map_column(folder: Path, name: str, dtype: npt.DTypeLike) -> np.ndarray:
    """Return a column of a folder, read from disk as its numbers are asked for."""
    file = folder / f"{name}.bin"
    # An empty file cannot be mapped.
    return np.asarray(np.memmap(file, dtype, "r")) if file.stat().st_size else np.zeros(0, dtype)
