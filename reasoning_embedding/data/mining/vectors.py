"""Vectors of many texts, written to disk as they are made: what was embedded outlives a kill."""

from __future__ import annotations

import os
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
        ``name.npy`` of the folder holds the vectors, ``name.json`` how many are done.
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
    done = read_json(record, default={"done": 0})["done"]
    vectors = np.load(file, mmap_mode="r+") if done else None
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
        write_json(record, {"done": start + len(part)})
        countdown(start + len(part), len(texts))
    return np.load(file, mmap_mode="r")


def _allocate(file: Path) -> None:
    """Give a file all of its blocks now: a mapped page that finds the disk full ends the process with SIGBUS."""
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
