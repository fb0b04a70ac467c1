"""Rows that a Python program holds become a file of rows, so that a run finds them again wherever it goes on."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import explain_disk_errors

#: Folder, below a run's ``output_dir``, that keeps them.
FOLDER = ".data"
#: What rows without a ``source`` are called.
NAME = "rows"
_WRITE = 'give rows as {"query": text, "pos": text or [texts], "neg": [texts]}; the names that files may have are read too'


def write_given_rows(rows: Iterable[Any], folder: Path, *, name: str = NAME) -> Path:
    """Write rows into a file that their content names; one that is there stays as it is.

    Parameters
    ----------
    rows : iterable
        Mappings with the columns that a file's records may have: a list, a ``datasets.Dataset``; or a pandas DataFrame.
        A cell that is None, NaN or NA counts as absent.
    folder : Path
        The rows go to ``<folder>/<digest>/<name>.jsonl``.
    name : str
        What rows without a ``source`` are called.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If an entry is no mapping, holds a value that is neither text, number nor a list of them, or there is none.
    SetupError
        If the file cannot be written.
    """
    digest, count = hashlib.sha256(), 0
    with explain_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"rows-{os.getpid()}.partial"
        try:
            with temporary.open("wb") as file:
                for count, record in enumerate(_records(rows), start=1):
                    line = (json.dumps(_plain_row(record, count - 1), ensure_ascii=True) + "\n").encode()
                    digest.update(line)
                    file.write(line)
            if not count:
                raise InputError("there are no rows", where="rows", todo=_WRITE)
            final = folder / digest.hexdigest()[:24] / f"{name}.jsonl"
            final.parent.mkdir(exist_ok=True)
            # Of one content: whichever rank or program comes last changes nothing, and a known file keeps its time.
            if not final.is_file() or final.stat().st_size != temporary.stat().st_size:
                temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)
    return final


def _records(rows: Any) -> Iterator[Any]:
    """Rows one by one; a DataFrame's are taken as they stand, its index left out."""
    if isinstance(rows, str | bytes | Mapping):
        raise InputError(f"rows is a {type(rows).__name__}, not a list of rows", where="rows", todo=_WRITE)
    if hasattr(rows, "itertuples") and hasattr(rows, "columns"):
        names = [str(name) for name in rows.columns]
        for values in rows.itertuples(index=False, name=None):
            yield dict(zip(names, values, strict=True))
        return
    try:
        entries = iter(rows)
    except TypeError as error:
        raise InputError(f"rows is a {type(rows).__name__}", where="rows", todo=_WRITE) from error
    yield from entries


def _plain_row(record: Any, index: int) -> dict[str, Any]:
    if not isinstance(record, Mapping):
        raise InputError(
            f"it is a {type(record).__name__}, not a mapping", where=f"rows[{index}]", todo=_WRITE
        )
    found = {str(key): _plain(value, index, str(key)) for key, value in record.items()}
    return {key: value for key, value in found.items() if value is not None}


def _plain(value: Any, index: int, key: str) -> Any:
    """A value as JSON has it; None for a missing one."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        return {str(name): _plain(item, index, key) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, index, key) for item in value]
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        return _plain(value.tolist(), index, key)
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas' own words for nothing
        return None
    raise InputError(
        f"its {key} is a {type(value).__name__}",
        where=f"rows[{index}]",
        todo="write texts, numbers, or lists of them",
    )
