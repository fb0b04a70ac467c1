"""A teacher's vectors of texts in a folder, found again by the text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_folder, hash_file, read_json, write_json

if TYPE_CHECKING:
    from .table import Table

RECORD = "teacher.json"
_KEYS, _VECTORS = "keys.npy", "vectors.npy"
_ROWS = 65536

Side = Literal["query", "document"]


def _keys(side: Side, texts: Iterable[str]) -> np.ndarray:
    """(n, 2) uint64 of the texts of a side; other texts have others, but for a chance of 1e-20 among 1e9."""
    digests = (hashlib.blake2b(f"{side}\0{text}".encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(b"".join(digests), dtype=np.uint64).reshape(-1, 2)


def write_vectors(
    folder: Path,
    queries: tuple[Sequence[str], np.ndarray],
    documents: tuple[Sequence[str], np.ndarray],
    record: dict[str, Any],
) -> None:
    """Write the vectors of the texts of both sides, whole or not at all; a folder of before is replaced.

    Parameters
    ----------
    folder : Path
        Gets ``vectors.npy``, ``keys.npy`` and ``teacher.json``.
    queries, documents : (sequence of str, np.ndarray)
        Texts without prompts, and their (n, D) vectors. A text may be on both sides, with another vector.
    record : dict
        Who made them, and how.

    Raises
    ------
    InputError
        If one query has two different vectors, by two instructions.
    SetupError
        If the disk is full or the folder cannot be written.
    """
    parts = [(_keys("query", queries[0]), queries[1]), (_keys("document", documents[0]), documents[1])]
    keys = np.concatenate([part for part, _ in parts])
    width = queries[1].shape[1]
    _refuse_double(*queries, keys=parts[0][0])
    with atomic_folder(folder) as temporary:
        out = np.lib.format.open_memmap(
            temporary / _VECTORS, mode="w+", dtype=np.float32, shape=(len(keys), width)
        )
        place = 0
        for _, vectors in parts:
            for start in range(0, len(vectors), _ROWS):
                some = vectors[start : start + _ROWS]
                out[place : place + len(some)] = some
                place += len(some)
        out.flush()
        del out
        np.save(temporary / _KEYS, keys)
        sums = {name: hash_file(temporary / name) for name in (_KEYS, _VECTORS)}
        facts = {**record, "texts": len(keys), "dimension": width, "sums": sums}
        write_json(temporary / RECORD, facts, summed=True)


def _refuse_double(texts: Sequence[str], vectors: np.ndarray, *, keys: np.ndarray) -> None:
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    others = first[inverse.reshape(-1)]
    for index in np.flatnonzero(others != np.arange(len(keys))).tolist():
        if np.abs(vectors[index] - vectors[others[index]]).max() > 1e-4:
            raise InputError(
                "this query has two vectors, by two instructions",
                where=repr(texts[index][:60]),
                todo="give one --query-prompt, or score the sources in files of their own",
            )


class TeacherVectors:
    """The vectors of a folder, and which of them is each text's of a table.

    Parameters
    ----------
    folder : Path
        What :func:`write_vectors` wrote.
    table : Table
        The rows of a run. A text that is a query somewhere gets its vector as a query.

    Attributes
    ----------
    record : dict
        Who made the vectors, and how: ``teacher.json``.
    sum : str
        SHA-256 of the files, hexadecimal.

    Raises
    ------
    InputError
        If the folder holds no such vectors, they are damaged or not finite, or a text has none.
    """

    def __init__(self, folder: Path, table: Table) -> None:
        where = str(folder)
        again = "make the folder again: rembed data score MODEL ROWS -o OUT --vectors FOLDER"
        try:
            self.record = read_json(folder / RECORD, todo=again)
            # Before they are opened: NumPy parses a damaged header with whatever comes of it.
            sums = {name: hash_file(folder / name) for name in (_KEYS, _VECTORS)}
            if sums != self.record.get("sums"):
                raise InputError(
                    "the teacher's vectors are damaged: their sums are others", where=where, todo=again
                )
            keys = np.load(folder / _KEYS)
            self._vectors = np.load(folder / _VECTORS, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise InputError(
                "no teacher's vectors lie here",
                where=where,
                todo="rembed data score MODEL ROWS -o OUT --vectors FOLDER",
            ) from error
        self.sum = hashlib.sha256("".join(sums.values()).encode()).hexdigest()
        asked = np.zeros(len(table.texts), dtype=bool)
        asked[table.query] = True
        sides: tuple[Side, Side] = ("document", "query")
        wanted = np.empty((len(table.texts), 2), np.uint64)
        for side, chosen in zip(sides, (~asked, asked), strict=True):
            ids = np.flatnonzero(chosen)
            wanted[ids] = _keys(side, (table.texts[text][1] for text in ids.tolist()))
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        known, asked_for = (_as_scalars(some) for some in (keys[order], wanted))
        place = np.searchsorted(known, asked_for).clip(max=max(len(known) - 1, 0))
        lacking = np.flatnonzero(known[place] != asked_for) if len(known) else np.arange(len(wanted))
        if len(lacking):
            text = table.texts[int(lacking[0])][1]
            raise InputError(
                f"{len(lacking):,} of {len(wanted):,} texts have no vector, the first is {text[:60]!r}",
                where=where,
                todo="score the rows of this run with --vectors",
            )
        self._rows = order[place]
        for start in range(0, len(self._rows), _ROWS):
            norms = np.linalg.norm(self._vectors[self._rows[start : start + _ROWS]], axis=1)
            bad = np.flatnonzero(~(np.abs(norms - 1) < 1e-3))  # NaN is no number below
            if len(bad):
                text = table.texts[start + int(bad[0])][1]
                raise InputError(
                    f"the teacher's vector of {text[:60]!r} has length {norms[bad[0]]:g}, not 1",
                    where=where,
                    todo=again,
                )

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._vectors.shape[1])

    def __getitem__(self, texts: np.ndarray) -> np.ndarray:
        """(n, D) float32 vectors of texts of the table, by their ids."""
        return np.ascontiguousarray(self._vectors[self._rows[texts]], dtype=np.float32)


def _as_scalars(keys: np.ndarray) -> np.ndarray:
    """Keys as one sortable value each: the first number, then the second."""
    big = np.ascontiguousarray(keys).astype(">u8")
    return big.view("S16").reshape(-1)
