"""Shorter and coarser vectors: the first entries of each, and int8 or binary codes, as sentence-transformers makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from reasoning_embedding.errors import InputError

#: Bits of an entry of a vector.
_BITS = {None: 32, "int8": 8, "binary": 1}


@dataclass(frozen=True)
class Compression:
    """What is kept of a vector.

    Parameters
    ----------
    truncate : int, optional
        Its first entries, brought to unit length again (Matryoshka). Absent: all.
    quantize : {"int8", "binary"}, optional
        ``int8``: each entry as one of 256 steps between the least and the largest of that entry in the calibration
        vectors. ``binary``: whether each entry is above 0, eight to a byte.
    """

    truncate: int | None = None
    quantize: Literal["int8", "binary"] | None = None

    @property
    def name(self) -> str:
        """What a folder of its scores is called, such as ``256-int8``; empty for whole vectors."""
        parts = [str(self.truncate or ""), self.quantize or ""]
        return "-".join(part for part in parts if part)

    def dimension(self, whole: int) -> int:
        """Length of what is left of vectors of length `whole`.

        Raises
        ------
        InputError
            If the vectors are shorter than what is to be kept.
        """
        if self.truncate is not None and self.truncate > whole:
            raise InputError(
                f"the model's vectors have {whole} entries, fewer than {self.truncate}",
                where="truncate",
                todo=f"keep at most {whole}",
            )
        return self.truncate or whole

    def bytes(self, whole: int) -> int:
        """Bytes that one vector takes, of vectors of length `whole`."""
        return -(-self.dimension(whole) * _BITS[self.quantize] // 8)

    def shorten(self, vectors: np.ndarray) -> np.ndarray:
        """Keep the first entries of rows (n, D) and give them unit length again."""
        if self.truncate is None:
            return vectors
        return _unit(vectors[:, : self.dimension(vectors.shape[1])])

    def codes(self, vectors: np.ndarray, ranges: np.ndarray | None = None) -> np.ndarray:
        """Return what is stored of shortened rows: int8 (n, D), packed bits as int8 (n, D/8), or the rows themselves.

        Parameters
        ----------
        vectors : array (n, D)
            What :meth:`shorten` gave.
        ranges : array (2, D), optional
            Of :func:`ranges_of`; int8 needs it.
        """
        if self.quantize is None:
            return vectors
        from sentence_transformers.util import quantize_embeddings

        given = {"ranges": ranges} if self.quantize == "int8" else {}
        return np.asarray(quantize_embeddings(vectors, precision=self.quantize, **given))

    def scored(
        self, vectors: np.ndarray, ranges: np.ndarray | None = None, *, signs: bool = False
    ) -> np.ndarray:
        """Return the unit vectors whose products are the similarities of the codes.

        Parameters
        ----------
        vectors, ranges
            As :meth:`codes` takes them.
        signs : bool
            Bits as -1 and 1, so that the order is that of the Hamming distance, as an index of binary vectors has it;
            otherwise as 0 and 1, whose cosine sentence-transformers' ``EmbeddingSimilarityEvaluator`` takes.
        """
        if self.quantize is None:
            return vectors
        codes = self.codes(vectors, ranges)
        if self.quantize == "binary":
            bits = np.unpackbits(
                (codes.astype(np.int16) + 128).astype(np.uint8), axis=1, count=vectors.shape[1]
            )
            return _unit(bits.astype(np.float32) * (2 if signs else 1) - (1 if signs else 0))
        return _unit(codes.astype(np.float32))


def ranges_of(vectors: np.ndarray) -> np.ndarray:
    """Return the least and the largest value (2, D) of each entry over rows: what int8 steps lie between.

    Raises
    ------
    InputError
        With fewer than two rows, which have no range.
    """
    if len(vectors) < 2:
        raise InputError(
            "int8 needs at least two vectors to find the range of each entry",
            todo="give more texts, or the ranges of a larger set",
        )
    return np.stack([vectors.min(axis=0), vectors.max(axis=0)]).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(norms, np.finfo(np.float32).tiny)
