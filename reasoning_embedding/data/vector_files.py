"""Files of vectors with the ids of their texts: NumPy's, parquet's and safetensors', written from parts of any number."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_file

#: How a file of vectors ends.
SUFFIXES = (".npy", ".parquet", ".safetensors")
#: What holds a vector in parquet and all of them in safetensors.
_ID, _EMBEDDING, _EMBEDDINGS = "id", "embedding", "embeddings"
_IDS, _ENDS = "ids", "id_ends"
_SAFETENSORS = {"int64": "I64", "float32": "F32", "int8": "I8", "uint8": "U8"}
_INT64 = np.iinfo(np.int64)

Ids = Sequence[int | str]


@dataclass(frozen=True)
class VectorParts:
    """Vectors and ids that are read part by part, more than once.

    Parameters
    ----------
    rows, columns : int
        Shape of all parts together.
    dtype : np.dtype
        float32 or int8.
    vectors : callable
        Starts from the first part each time it is called; each part is (k, columns).
    ids : callable
        Likewise the ids of each part.
    whole_numbers : bool
        Whether every id is a whole number of 64 bits; else all are written as texts.
    row_numbers : bool
        Whether they count the rows from 0 on, so that a file of rows in order says the same without them.
    """

    rows: int
    columns: int
    dtype: np.dtype
    vectors: Callable[[], Iterable[np.ndarray]]
    ids: Callable[[], Iterable[Ids]]
    whole_numbers: bool
    row_numbers: bool

    def id_arrays(self) -> Iterator[np.ndarray]:
        """Whole numbers as (k,) int64, part by part."""
        for ids in self.ids():
            yield np.asarray(ids, dtype=np.int64)

    def id_bytes(self) -> Iterator[list[bytes]]:
        """Texts as UTF-8, part by part."""
        for ids in self.ids():
            yield [str(name).encode() for name in ids]


def fits_int64(name: int | str) -> bool:
    """Whether an id is a whole number that every one of these formats can hold."""
    return isinstance(name, int) and _INT64.min <= name <= _INT64.max


def ids_beside(path: Path) -> Path:
    """Where the ids of an ``.npy`` lie: one JSON value a line."""
    return path.with_suffix(".ids.jsonl")


def save_vectors(path: Path, parts: VectorParts) -> None:
    """Write a file of vectors, whole or not at all; memory holds a part of it at a time.

    Parameters
    ----------
    path : Path
        ``.npy``: the rows, and beside it ``<stem>.ids.jsonl`` unless the ids are row numbers. ``.parquet``: columns
        ``id`` (int64 or string) and ``embedding`` (a list of fixed length), a row group a part. ``.safetensors``:
        ``embeddings`` (n, D); ``ids`` (n,) int64, or the ids' UTF-8 one after another as ``ids`` (bytes,) with the end
        of each in ``id_ends`` (n,).
    parts : VectorParts
        What to write.

    Raises
    ------
    SetupError
        When the disk is full or the folder cannot be written.
    """
    if path.suffix == ".npy":
        if parts.row_numbers:
            ids_beside(path).unlink(missing_ok=True)  # of other vectors under this name
        else:
            with atomic_file(ids_beside(path)) as temporary, temporary.open("w", encoding="utf-8") as lines:
                for ids in parts.ids():
                    lines.writelines(json.dumps(name, ensure_ascii=False) + "\n" for name in ids)
    with atomic_file(path) as temporary:
        if path.suffix == ".parquet":
            _write_parquet(temporary, parts)
            return
        with temporary.open("wb") as file:
            (_write_npy if path.suffix == ".npy" else _write_safetensors)(file, parts)


def load_vectors(path: Path) -> tuple[np.ndarray | list[str], np.ndarray]:
    """Read what :func:`save_vectors` wrote: ids (n,) int64 or a list of n texts, and vectors (n, D).

    Raises
    ------
    InputError
        If there is no such file, or it holds no vectors.
    """
    todo = "name a file that `rembed embed` wrote"
    try:
        if path.suffix == ".npy":
            vectors = np.load(path, mmap_mode="r", allow_pickle=False)
            if not (beside := ids_beside(path)).is_file():
                return np.arange(len(vectors)), vectors
            ids = [json.loads(line) for line in beside.read_text(encoding="utf-8").splitlines()]
            return (np.array(ids) if all(map(fits_int64, ids)) else [str(name) for name in ids]), vectors
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            table = pq.read_table(path)
            column = table.column(_EMBEDDING).combine_chunks()
            vectors = column.flatten().to_numpy().reshape(len(table), column.type.list_size)
            names = table.column(_ID)
            return (names.to_numpy() if str(names.type) == "int64" else names.to_pylist()), vectors
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            found = load_file(path)
            if _ENDS not in found:
                return found[_IDS], found[_EMBEDDINGS]
            text, ends = found[_IDS].tobytes(), found[_ENDS].tolist()
            starts = [0, *ends[:-1]]
            return [text[a:b].decode() for a, b in zip(starts, ends, strict=True)], found[_EMBEDDINGS]
    except FileNotFoundError as error:
        raise InputError("no such file", where=str(path.absolute()), todo=todo) from error
    except Exception as error:  # each library has errors of its own
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(
            f"not a file of vectors ({reason})", where=str(path.absolute()), todo=todo
        ) from error
    raise InputError(f"not one of {', '.join(SUFFIXES)}", where=str(path.absolute()), todo=todo)


def _write_npy(file: BinaryIO, parts: VectorParts) -> None:
    header = {
        "descr": np.lib.format.dtype_to_descr(parts.dtype),
        "fortran_order": False,
        "shape": (parts.rows, parts.columns),
    }
    np.lib.format.write_array_header_1_0(file, header)
    for rows in parts.vectors():
        file.write(np.ascontiguousarray(rows).data)


def _write_parquet(path: Path, parts: VectorParts) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        {
            _ID: pa.int64() if parts.whole_numbers else pa.string(),
            _EMBEDDING: pa.list_(pa.from_numpy_dtype(parts.dtype), parts.columns),
        }
    )
    # Entries of vectors hardly repeat: a dictionary of them costs time and saves nothing.
    with pq.ParquetWriter(path, schema, use_dictionary=False, compression="zstd") as writer:
        for ids, rows in zip(parts.ids(), parts.vectors(), strict=True):
            names = pa.array(
                ids if parts.whole_numbers else [str(name) for name in ids], schema.field(0).type
            )
            values = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), parts.columns)
            writer.write_table(pa.table([names, values], schema=schema))


def _write_safetensors(file: BinaryIO, parts: VectorParts) -> None:
    """Write by hand what the library would only write of arrays that lie in memory whole."""
    size = parts.rows * parts.columns * parts.dtype.itemsize
    tensors: list[tuple[str, np.dtype, tuple[int, ...], int]] = []
    # The widest entries first, so that every tensor starts at a multiple of its entry.
    if parts.whole_numbers:
        tensors.append((_IDS, np.dtype(np.int64), (parts.rows,), 8 * parts.rows))
    else:
        tensors.append((_ENDS, np.dtype(np.int64), (parts.rows,), 8 * parts.rows))
    tensors.append((_EMBEDDINGS, parts.dtype, (parts.rows, parts.columns), size))
    if not parts.whole_numbers:
        text = sum(sum(map(len, names)) for names in parts.id_bytes())
        tensors.append((_IDS, np.dtype(np.uint8), (text,), text))
    header: dict[str, Any] = {}
    start = 0
    for name, dtype, shape, bytes_ in tensors:
        header[name] = {
            "dtype": _SAFETENSORS[dtype.name],
            "shape": list(shape),
            "data_offsets": [start, start + bytes_],
        }
        start += bytes_
    content = json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)
    file.write(len(content).to_bytes(8, "little") + content)
    if parts.whole_numbers:
        for numbers in parts.id_arrays():
            file.write(numbers.astype("<i8").data)
    else:
        end = 0
        for names in parts.id_bytes():
            ends = end + np.cumsum([len(name) for name in names], dtype="<i8")
            end = int(ends[-1])
            file.write(ends.data)
    for rows in parts.vectors():
        file.write(np.ascontiguousarray(rows).data)
    if not parts.whole_numbers:
        for names in parts.id_bytes():
            file.write(b"".join(names))
