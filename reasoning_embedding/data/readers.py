"""Records of files: JSON Lines (.gz too) and parquet, one file or a folder of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from reasoning_embedding.errors import InputError

from .lines import read_lines, regular_file
from .rows import Record, RowProblem

if TYPE_CHECKING:
    import pyarrow as pa

#: What values that Python has no object for raise: bytes that are no text, times out of range.
_ODD = (ArithmeticError, LookupError, TypeError, ValueError)
_LARGEST_BATCH = 2**30

JSONL_SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz")
PARQUET_SUFFIX = ".parquet"
_FOLDER_SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", PARQUET_SUFFIX)


def data_files(path: str | Path) -> list[Path]:
    """The data files a path stands for: itself, or those of a folder and its subfolders by name.

    Raises
    ------
    InputError
        If there is no such path, or the folder has no file of a known kind.
    """
    path = _expanded(Path(path))
    if path.is_dir():
        found = sorted(
            file
            for file in path.rglob("*")
            if file.name.endswith(_FOLDER_SUFFIXES)
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        if not found:
            raise InputError("no data files in this folder", where=str(path), todo=f"put {_known()} there")
        return found
    if not path.exists():
        raise InputError("no such file or folder", where=str(path), todo="check the path in data.sources")
    return [regular_file(path)]


def _expanded(path: Path) -> Path:
    """Return a path with the home folder in it, and refuse what no system can look for."""
    try:
        path = path.expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        what = f"no path of this system ({getattr(error, 'strerror', None) or error})"
        raise InputError(what, where=str(path)[:300], todo="check the path in data.sources") from error
    return path


def file_stem(path: Path) -> str:
    """The name of a data file without its suffixes: the default name of its source."""
    name = path.name.removesuffix(".gz")
    return next((name.removesuffix(end) for end in _FOLDER_SUFFIXES if name.endswith(end)), Path(name).stem)


def read_records(path: Path) -> Iterator[Record]:
    """Records of one file, each with its place; a record that cannot be read is a :class:`RowProblem`.

    Parameters
    ----------
    path : Path
        JSON Lines (``.jsonl``, ``.ndjson``, ``.json``, each also ``.gz``) or ``.parquet``.

    Raises
    ------
    InputError
        If the file as a whole cannot be read: its kind is unknown, it is missing, or its compression
        or container is broken. That stops whatever ``data.bad_rows`` says, because nobody knows how
        many rows are lost.
    """
    if path.name.endswith(PARQUET_SUFFIX):
        return _parquet(path)
    if path.name.endswith(JSONL_SUFFIXES):
        return _json_lines(path)
    raise InputError(f"unknown kind of data file {path.suffix!r}", where=str(path), todo=f"use {_known()}")


def _known() -> str:
    return "JSON Lines (.jsonl, .jsonl.gz) or .parquet files"


def _json_lines(path: Path) -> Iterator[Record]:
    for number, line in read_lines(path):
        if line.strip():
            yield f"{path}:{number}", parse_json(line)


def parse_json(line: bytes) -> object:
    """Return what a line of JSON stands for, or the :class:`RowProblem` that it is."""
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        return RowProblem("not UTF-8", "save the file as UTF-8", f"byte {error.start + 1} of the line")
    except json.JSONDecodeError as error:
        detail = f"{error.msg} at column {error.colno}"
        return RowProblem("not JSON", "put one JSON object on each line", detail)
    except (ValueError, RecursionError) as error:
        # Integers of thousands of digits and lists nested thousands deep: valid JSON, never a row.
        return RowProblem("JSON that cannot be read", "put one JSON object on each line", str(error)[:80])


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        with pq.ParquetFile(regular_file(path)) as file:
            for batch in file.iter_batches(batch_size=1024):
                if batch.nbytes > _LARGEST_BATCH:  # one text of a dictionary may stand in every row
                    what = f"its rows have {batch.nbytes / batch.num_rows / 2**20:.0f} MiB each"
                    raise InputError(what, where=f"{path}: row {number + 1}", todo="cut the texts")
                for record in _batch_records(batch):
                    number += 1
                    yield f"{path}: row {number}", record
    except (pa.ArrowException, OSError, *_ODD) as error:
        message = f"cannot read the parquet file ({(str(error).splitlines() or [''])[0][:120]})"
        raise InputError(message, where=str(path), todo="write or download the file again") from error


def _batch_records(batch: pa.RecordBatch) -> Iterator[object]:
    try:
        yield from batch.to_pylist()
    except _ODD:
        # Parquet does not check its strings and times; find the row by reading them one at a time.
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield RowProblem("not UTF-8", "write the strings as UTF-8")
            except _ODD as error:
                yield RowProblem("a value that cannot be read", "write texts and numbers", str(error)[:80])
