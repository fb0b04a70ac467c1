"""Where the tokens of a pack lie when each head of each text stands by itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """The texts of a pack, in the order of its tokens.

    Token-major is (T, heads * size). In head-major a text of n tokens that starts at token s is (heads, n, size),
    contiguous, at s * heads * size: batched products of equally long texts then need no copy.

    Attributes
    ----------
    start, length : Tensor
        (T,) int64, of each token's text.
    runs : tuple of (int, int)
        Length and number of the texts of each run of equally long ones.
    """

    start: Tensor
    length: Tensor
    runs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, boundaries: Tensor) -> Layout:
        """Lay out texts by their (n+1) boundaries; texts of no tokens count for nothing."""
        lengths = boundaries.diff().long()
        runs = tuple((length, len(list(same))) for length, same in groupby(lengths.tolist()) if length)
        return cls(
            boundaries[:-1].long().repeat_interleave(lengths), lengths.repeat_interleave(lengths), runs
        )

    def rows(self, heads: int) -> Tensor:
        """(T * heads,) int64: the head-major row of each token-major one."""
        within = torch.arange(len(self.start)) - self.start
        of_head = torch.arange(heads) * self.length[:, None]
        return (self.start[:, None] * heads + of_head + within[:, None]).flatten()

    @cached_property
    def slices(self) -> tuple[tuple[int, int, slice], ...]:
        """Length, number of texts and tokens of each run."""
        found, begin = [], 0
        for length, texts in self.runs:
            found.append((length, texts, slice(begin, begin + length * texts)))
            begin += length * texts
        return tuple(found)
