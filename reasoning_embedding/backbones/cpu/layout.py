"""Where the tokens of a pack lie when each head of each text stands by itself."""

from __future__ import annotations

from dataclasses import dataclass
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
    runs : tuple of (int, slice)
        Each run of equally long texts: their length, and the tokens of them all.
    """

    start: Tensor
    length: Tensor
    runs: tuple[tuple[int, slice], ...]

    @classmethod
    def of(cls, boundaries: Tensor) -> Layout:
        """Lay out texts by their (n+1) boundaries; texts of no tokens count for nothing."""
        lengths = boundaries.diff().long()
        runs, begin = [], 0
        for length, same in groupby(lengths.tolist()):
            end = begin + sum(same)
            if length:
                runs.append((length, slice(begin, end)))
            begin = end
        starts = boundaries[:-1].long()
        return cls(starts.repeat_interleave(lengths), lengths.repeat_interleave(lengths), tuple(runs))

    def rows(self, heads: int) -> Tensor:
        """(T * heads,) int64: the head-major row of each token-major one."""
        within = torch.arange(len(self.start)) - self.start
        of_head = torch.arange(heads) * self.length[:, None]
        return (self.start[:, None] * heads + of_head + within[:, None]).flatten()
