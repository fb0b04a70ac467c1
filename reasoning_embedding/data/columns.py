"""Columns of numbers: in memory, or in a folder from which they are read as they are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt


class ColumnWriter:
    """Numbers of one type that are written once, in order.

    Parameters
    ----------
    folder : Path or None
        Its ``<name>.bin`` receives them, so that what is written takes no memory; None: they are held.
    name : str
        The column's name.
    dtype : dtype
        Their type.
    """

    def __init__(self, folder: Path | None, name: str, dtype: npt.DTypeLike) -> None:
        self._folder, self._name, self._dtype = folder, name, np.dtype(dtype)
        self._file = None if folder is None else (folder / f"{name}.bin").open("wb")
        self._parts = [np.zeros(0, dtype)]

    def write(self, values: npt.ArrayLike) -> None:
        """Add (k,) values at the end."""
        if self._file is None:
            self._parts.append(np.array(values, self._dtype))
        else:
            self._file.write(np.asarray(values, self._dtype).tobytes())

    def close(self) -> np.ndarray:
        """Return all values, (n,): those of a file are mapped."""
        if self._file is None or self._folder is None:
            return np.concatenate(self._parts)
        self._file.close()
        return map_column(self._folder, self._name, self._dtype)


def map_column(folder: Path, name: str, dtype: npt.DTypeLike) -> np.ndarray:
    """Return a column of a folder, read from disk as its numbers are asked for."""
    file = folder / f"{name}.bin"
    # An empty file cannot be mapped.
    return np.asarray(np.memmap(file, dtype, "r")) if file.stat().st_size else np.zeros(0, dtype)
