"""Vectors of many texts, written to disk as they are made: what was embedded outlives a kill."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import explain_disk_errors, read_json, require_space, write_json
from reasoning_embedding.progress import Countdown, Report

#: Texts and their prompt -> (n, D) unit vectors.
Encode = Callable[[Sequence[str], str], np.ndarray]


def embed_texts(
    folder: Path,
    name: str,
    texts: Sequence[tuple[str, str]],
    encode: Encode,
    report: Report,
    *,
    chunk: int = 4096,
) -> np.ndarray:
    """Return the vectors of (prompt, text) pairs, memory-mapped; goes on where a stopped process was.

    Parameters
    ----------
    folder, name
        ``name.npy`` of the folder holds the vectors, ``name.json`` which parts are done and the CRC-32 of each.
    texts : sequence of (str, str)
        Prompt and text; at least one.
    encode : callable
        Gives unit vectors.
    report : callable
        Takes lines of progress.
    chunk : int
        Texts embedded between two moments at which a stopped job can go on.

    Raises
    ------
    InputError
        If a vector is not finite.
    SetupError
        If the folder cannot be written.
    """
    file, record = folder / f"{name}.npy", folder / f"{name}.json"
    with explain_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    vectors, parts = _whole_parts(file, record, len(texts), report)
    done = parts[-1][0] if parts else 0
    countdown = Countdown(report, f"{name} embedded", done=done)
    for start in range(done, len(texts), chunk):
        part = texts[start : start + chunk]
        found = np.empty((0, 0))
        for prompt in dict.fromkeys(prompt for prompt, _ in part):
            places = [place for place, pair in enumerate(part) if pair[0] == prompt]
            values = encode([part[place][1] for place in places], prompt)
            if not found.size:
                found = np.empty((len(part), values.shape[1]), np.float32)
            found[places] = values
        if not np.isfinite(found).all():
            bad = part[int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])][1]
            raise InputError(
                "the model's vector is not finite", where=f"text {bad[:60]!r}", todo="check the model"
            )
        with explain_disk_errors(file):
            if vectors is None:
                shape = (len(texts), found.shape[1])
                require_space(file, 4 * shape[0] * shape[1], f"{name} of {len(texts):,} texts")
                vectors = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
                _allocate(file)
            vectors[start : start + len(part)] = found
            vectors.flush()
        parts.append([start + len(part), zlib.crc32(found.data)])
        write_json(record, {"parts": parts}, summed=True)
        countdown(start + len(part), len(texts))
    return np.load(file, mmap_mode="r")


def _whole_parts(
    file: Path, record: Path, count: int, report: Report
) -> tuple[np.memmap | None, list[list[int]]]:
    """Return the vectors that a stopped process left, and end and CRC-32 of their parts up to the first damaged one."""
    if not record.exists():
        return None, []
    try:
        parts = read_json(record)["parts"]
        vectors = np.load(file, mmap_mode="r+")
        if vectors.ndim != 2 or len(vectors) != count or vectors.dtype != np.float32:
            raise ValueError("it holds other vectors")
    except Exception as error:  # noqa: BLE001  NumPy reads a damaged header with Python's own tokenizer
        report(f"{file} cannot be used ({str(error).splitlines()[0]}): its texts are embedded anew")
        return None, []
    whole: list[list[int]] = []
    for end, total in parts:
        start = whole[-1][0] if whole else 0
        if zlib.crc32(np.ascontiguousarray(vectors[start:end]).data) != total:
            report(
                f"{file} was changed after it was written: text {start:,} and what follows are embedded anew"
            )
            break
        whole.append([end, total])
    return (vectors if whole else None), whole


def _allocate(file: Path) -> None:
    """Give a file all of its blocks now: a mapped page that finds the disk full ends the process with SIGBUS."""
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
