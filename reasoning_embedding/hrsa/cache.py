"""Kept rows of measured checkpoints on disk, so that a model is read once for all its comparisons."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from reasoning_embedding.files import atomic_file

from .capture import Activations, Sample

_SUFFIX, _SINKS = ".safetensors", ".sinks"


def _crc32(tensors: list[np.ndarray]) -> int:
    total = 0
    for tensor in tensors:
        total = zlib.crc32(np.ascontiguousarray(tensor).data.cast("B") if tensor.size else b"", total)
    return total


class ActivationCache:
    """A bounded folder of activations; entries are found by what decided them.

    Parameters
    ----------
    folder : Path
        Where they lie; made when the first is kept.
    limit_mib : int
        Most that is kept; the least recently used go first.
    """

    def __init__(self, folder: Path, limit_mib: int) -> None:
        self.folder, self._limit = folder, limit_mib * 2**20

    def get(self, key: str, sample: Sample) -> Activations | None:
        """Return the activations under `key` for that sample, or None; a damaged entry counts as none."""
        path = self.folder / f"{key}{_SUFFIX}"
        try:
            with safe_open(path, framework="numpy") as file:
                facts = json.loads(file.metadata()["facts"])
                states = [file.get_tensor(f"layer.{index}") for index in range(len(facts["layers"]))]
                last, mean = file.get_tensor("last"), file.get_tensor("mean")
            if facts.pop("crc32", None) != _crc32([*states, last, mean]):
                raise SafetensorError("changed after it was written, or of an older version")
            os.utime(path)
        except (SafetensorError, ValueError, KeyError):  # damaged by a disk or a copy: read the model again
            path.unlink(missing_ok=True)
            return None
        except FileNotFoundError:  # dropped meanwhile by a process that shares the cache
            return None
        return Activations(facts["layers"], states, last, mean, sample, facts["causal"])

    def put(self, key: str, found: Activations) -> None:
        """Keep activations, and drop the least recently used beyond the limit; what is too large is not kept."""
        tensors = {f"layer.{index}": state for index, state in enumerate(found.states)}
        tensors |= {"last": found.last, "mean": found.mean}
        if sum(tensor.nbytes for tensor in tensors.values()) > self._limit:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".{key}.{os.getpid()}.partial"
        total = _crc32([*found.states, found.last, found.mean])
        facts = json.dumps({"layers": found.layers, "causal": found.causal, "crc32": total})
        save_file(
            {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()},
            partial,
            metadata={"facts": facts},
        )
        partial.replace(self.folder / f"{key}{_SUFFIX}")
        self._trim()

    def get_sinks(self, key: str) -> int | None:
        """Return how many leading sinks were measured under `key`, or None."""
        try:
            return int((self.folder / f"{key}{_SINKS}").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def put_sinks(self, key: str, found: int) -> None:
        """Keep how many there are."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.folder / f"{key}{_SINKS}") as partial:
            partial.write_text(str(found), encoding="utf-8")

    def _trim(self) -> None:
        found = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # dropped meanwhile by another process
                facts = path.stat()
                found.append((facts.st_mtime, facts.st_size, path))
        total = 0
        for _, size, path in sorted(found, reverse=True):
            total += size
            if total > self._limit:
                path.unlink(missing_ok=True)


def activation_key(content: str, tokens: str, sample: Sample) -> str:
    """Hash of all that decides the kept rows of a model: its content, the hash of the token ids, and the sample."""
    # Attention as saved and float32, as in the keys of versions that had a choice.
    digest = hashlib.sha256(json.dumps([content, None, tokens, sample.tokens, "float32"]).encode())
    digest.update(sample.documents.astype("<i8").tobytes())
    digest.update(sample.positions.astype("<i8").tobytes())
    return digest.hexdigest()


def sinks_key(content: str, tokens: str) -> str:
    """Hash of all that decides how many leading sinks a model has: its content and the hash of the token ids."""
    return hashlib.sha256(json.dumps(["sinks", content, tokens]).encode()).hexdigest()
