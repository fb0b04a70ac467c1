"""Embeddings of corpora on disk: a checkpoint encodes a corpus once, whoever asks for it again."""

from __future__ import annotations

import hashlib
import io
import logging
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reasoning_embedding.distributed import World
from reasoning_embedding.files import atomic_file

from .sharding import TextEncoder, broadcast_array

#: Sub-folder of an evaluation folder.
FOLDER = "embeddings"
_LOG = logging.getLogger(__name__)
_SUM_BYTES = 4


def _sum(content: bytes | memoryview) -> bytes:
    return zlib.crc32(content).to_bytes(_SUM_BYTES, "little")


class EmbeddingCache:
    """Float32 arrays in ``<folder>/<content hash>.npy``, each followed by the CRC-32 of what comes before it.

    Parameters
    ----------
    folder : Path
        Where the arrays lie; made when the first is saved.
    model : str
        Whatever decides an embedding besides prompt, length and texts: the revision, which carries the
        content hash of the weights, dtype and pooling. Changed weights never meet the arrays of old ones.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self.folder = folder
        self.model = model

    def path(self, texts: Sequence[str], *, prompt: str, max_tokens: int | None) -> Path:
        """Return where the embeddings of these texts, in this order, lie or would lie."""
        digest = hashlib.sha256()
        for part in (self.model, prompt, str(max_tokens), *texts):
            encoded = part.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little"))  # "ab", "c" is not "a", "bc"
            digest.update(encoded)
        return self.folder / f"{digest.hexdigest()}.npy"

    def load(self, path: Path) -> np.ndarray | None:
        """Return a saved array; None when there is none, or one that is damaged, which is said."""
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        content, total = content[:-_SUM_BYTES], content[-_SUM_BYTES:]
        if total != _sum(content):
            _LOG.warning("%s is damaged, or of an older version; its texts are embedded again", path)
            return None
        return np.load(io.BytesIO(content), allow_pickle=False)

    def save(self, path: Path, embeddings: np.ndarray) -> None:
        """Write an array, all or nothing.

        Raises
        ------
        SetupError
            When the disk is full or the folder cannot be written.
        """
        content = io.BytesIO()
        np.save(content, np.ascontiguousarray(embeddings, dtype=np.float32))
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.write(_sum(content.getbuffer()))

    @property
    def size(self) -> tuple[int, int]:
        """Number of arrays and their bytes."""
        sizes = [path.stat().st_size for path in self.folder.glob("*.npy")]
        return len(sizes), sum(sizes)

    def __str__(self) -> str:
        count, size = self.size
        return f"{count} corpus chunks, {size / 1e6:.1f} MB in {self.folder}"


class CachedEncoder:
    """An encoder that asks the cache first.

    Parameters
    ----------
    encoder : TextEncoder
        What encodes when the cache has nothing; under several ranks a
        :class:`~reasoning_embedding.evaluation.sharding.ShardedEncoder`.
    cache : EmbeddingCache
        Read and written by the main rank alone, so that ranks need not share a disk.
    world : World
        The job; all ranks call together.
    """

    def __init__(self, encoder: TextEncoder, cache: EmbeddingCache, world: World | None = None) -> None:
        self.encoder = encoder
        self.cache = cache
        self.world = world or World()

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return self.encoder.dimension

    def encode(
        self, texts: Sequence[str], *, prompt: str = "", max_tokens: int | None = None, **options: Any
    ) -> np.ndarray:
        """Return the embeddings (len(texts), dimension) of the cache, or encode and save them.

        Parameters
        ----------
        texts, prompt, max_tokens, **options
            As :meth:`~reasoning_embedding.evaluation.sharding.TextEncoder.encode` has them.
        """
        path = self.cache.path(texts, prompt=prompt, max_tokens=max_tokens)
        shape = (len(texts), self.dimension)
        found = self.cache.load(path) if self.world.is_main else None
        found = broadcast_array(found if found is not None and found.shape == shape else None, self.world)
        if found is not None:
            return found
        embeddings = self.encoder.encode(texts, prompt=prompt, max_tokens=max_tokens, **options)
        # What is not finite ends the task: it must not come back as a hit.
        if self.world.is_main and np.isfinite(embeddings).all():
            self.cache.save(path, embeddings)
        return embeddings
