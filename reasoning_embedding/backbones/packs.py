"""Packs: texts of token ids laid end to end, as the encoder takes them, and which texts share one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .dropout import KEYS, token_keys

#: Boundaries of a padded pack are this many, or a multiple of it: a fixed shape for compiled code.
_BOUNDARIES = 64
#: The last stream of a batch ends at a multiple of this: tokens are what weight gradients sum over, and a GPU
#: wants whole steps of its tensor cores there.
_TILE = 32


@dataclass(frozen=True)
class Pack:
    """n texts of T tokens in all, end to end; padding, where there is any, is dummy texts after them.

    Attributes
    ----------
    input_ids : Tensor
        (T,) int64.
    position_ids : Tensor
        (T,) int64, starting at 0 in each text.
    cu_seqlens : Tensor
        (m+1,) int32, m >= n, where each text begins and the last one ends; texts beyond the n-th are dummies,
        some of them empty.
    max_length : int
        Tokens of the longest text.
    prompt_lengths : Tensor
        (n,) int64, leading tokens of each text that are instruction.
    dropout_keys : Tensor, optional
        (T,) int64, what the dropout of each token is a function of; absent: torch's generator.
    """

    input_ids: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    max_length: int
    prompt_lengths: Tensor
    dropout_keys: Tensor | None = None

    def __len__(self) -> int:
        """Return the number n of real texts."""
        return len(self.prompt_lengths)

    def to(self, device: torch.device | str) -> Pack:
        """Return the pack on `device`."""
        return Pack(
            self.input_ids.to(device, non_blocking=True),
            self.position_ids.to(device, non_blocking=True),
            self.cu_seqlens.to(device, non_blocking=True),
            self.max_length,
            self.prompt_lengths.to(device, non_blocking=True),
            None if self.dropout_keys is None else self.dropout_keys.to(device, non_blocking=True),
        )

    def with_dropout(self, keys: np.ndarray) -> Pack:
        """Return the pack with dropout that depends on its n texts' `keys` (see :func:`.dropout.text_keys`)."""
        lengths = self.cu_seqlens.diff().long()
        texts = torch.nn.functional.pad(torch.from_numpy(keys), (0, len(lengths) - len(self)))
        tokens = texts.repeat_interleave(lengths)
        return replace(self, dropout_keys=token_keys(tokens, self.position_ids))

    def model_inputs(self) -> dict[str, object]:
        """Keyword arguments of a stock transformers decoder under ``packed`` attention."""
        dropout = {} if self.dropout_keys is None else {KEYS: self.dropout_keys[None]}
        return {
            **dropout,
            "input_ids": self.input_ids[None],
            "position_ids": self.position_ids[None],
            "attention_mask": None,
            "use_cache": False,
            "cu_seq_lens_q": self.cu_seqlens,
            "cu_seq_lens_k": self.cu_seqlens,
            "max_length_q": self.max_length,
            "max_length_k": self.max_length,
        }


def make_pack(
    texts: Sequence[np.ndarray], prompt_lengths: Sequence[int] | np.ndarray, *, pad_to: int = 0
) -> Pack:
    """Lay `texts` (arrays of token ids) end to end, in their order.

    Parameters
    ----------
    texts : sequence of np.ndarray
        Token ids of each text.
    prompt_lengths : sequence of int
        Leading tokens of each that are instruction.
    pad_to : int
        Fewest tokens of the pack. Dummy texts of token 0 fill it up, none longer than the longest text
        (attention costs the square of a length); `cu_seqlens` then grows to a multiple of 64 entries.
    """
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    padding = max(pad_to - int(lengths.sum()), 0)
    if padding:
        lengths = np.concatenate([lengths, _dummies(padding, int(lengths.max(initial=1)))])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    positions = np.arange(offsets[-1], dtype=np.int64) - np.repeat(offsets[:-1], lengths)
    if pad_to:
        offsets = np.pad(offsets, (0, -len(offsets) % _BOUNDARIES), mode="edge")
    return Pack(
        torch.from_numpy(np.concatenate([*texts, np.zeros(padding)]).astype(np.int64)),
        torch.from_numpy(positions),
        torch.from_numpy(offsets.astype(np.int32)),
        int(lengths.max()),
        torch.from_numpy(np.asarray(prompt_lengths, dtype=np.int64)),
    )


def _dummies(tokens: int, longest: int) -> np.ndarray:
    whole, rest = divmod(tokens, longest)
    return np.array([longest] * whole + [rest] * (rest > 0), dtype=np.int64)


def make_packs(
    texts: Sequence[np.ndarray],
    prompt_lengths: Sequence[int] | np.ndarray,
    pack_tokens: int,
    *,
    at_least: int = 1,
    streams: bool = False,
) -> list[tuple[Pack, np.ndarray]]:
    """Plan and lay out packs; each comes with the indices of its texts in `texts`.

    Parameters
    ----------
    texts : sequence of np.ndarray
        Token ids of each text.
    prompt_lengths : sequence of int
        Leading tokens of each that are instruction.
    pack_tokens : int
        Most tokens in a pack; a longer text is a pack of its own.
    at_least : int
        Fewest packs; those too many hold padding alone, and embed to no rows.
    streams : bool
        Pad packs to few fixed token counts (:func:`streams_for`), for compiled GPU steps; else
        slices of the length-sorted list (:func:`packs_for`), without padding.
    """
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    prompts = np.asarray(prompt_lengths)
    if streams:
        plan = streams_for(lengths, pack_tokens, at_least=at_least)
    else:
        # A pack without texts is one token of padding: a forward all the same.
        plan = [(pack, 0 if len(pack) else 1) for pack in packs_for(lengths, pack_tokens, at_least=at_least)]
    return [
        (make_pack([texts[index] for index in indices], prompts[indices], pad_to=size), indices)
        for indices, size in plan
    ]


def packs_for(lengths: np.ndarray, pack_tokens: int, *, at_least: int = 1) -> list[np.ndarray]:
    """Cut texts into packs of at most `pack_tokens` tokens and close to even, longest texts first.

    Sorting puts equally long texts side by side, which is what attention on a CPU wants. A text longer
    than the budget becomes a pack of its own.

    Parameters
    ----------
    lengths : np.ndarray
        (n,) tokens of each text.
    pack_tokens : int
        Most tokens in a pack.
    at_least : int
        Fewest packs, for ranks that must run as many forwards as the others. Where texts are too few,
        the last packs are empty.

    Returns
    -------
    list of np.ndarray
        Indices of the texts of each pack; together a permutation of ``range(n)``.

    Notes
    -----
    The number of packs is what greedy cutting at `pack_tokens` needs, or `at_least`; the cuts are those
    with the smallest largest pack.
    """
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    count = max(len(_cuts(ends, pack_tokens)), at_least if len(order) else 0)
    low, high = 1, pack_tokens
    while low < high:
        limit = (low + high) // 2
        low, high = (low, limit) if len(_cuts(ends, limit)) <= count else (limit + 1, high)
    packs = np.split(order, _cuts(ends, high)[:-1]) if len(order) else []
    while len(packs) < count and max(map(len, packs)) > 1:
        divisible = [place for place, pack in enumerate(packs) if len(pack) > 1]
        largest = max(divisible, key=lambda place: lengths[packs[place]].sum())
        packs[largest : largest + 1] = _halves(packs[largest], lengths)
    return packs + [order[:0]] * (at_least - len(packs))


def _cuts(ends: np.ndarray, limit: int) -> list[int]:
    """Where greedy packs of at most `limit` tokens end; a longer text stands alone."""
    cuts, start, tokens = [], 0, 0
    while start < len(ends):
        start = max(int(np.searchsorted(ends, tokens + limit, side="right")), start + 1)
        tokens = int(ends[start - 1])
        cuts.append(start)
    return cuts


def _halves(pack: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    ends = np.cumsum(lengths[pack])
    cut = int(np.searchsorted(ends, ends[-1] / 2)) + 1
    return np.split(pack, [min(cut, len(pack) - 1)])


def streams_for(lengths: np.ndarray, pack_tokens: int, *, at_least: int = 1) -> list[tuple[np.ndarray, int]]:
    """Fill streams of one fixed token count but for the last one, so that a compiled GPU step knows two shapes.

    Parameters
    ----------
    lengths : np.ndarray
        (n,) tokens of each text.
    pack_tokens : int
        Tokens of every stream but the last.
    at_least : int
        Fewest streams; those too many hold padding alone.

    Returns
    -------
    list of (np.ndarray, int)
        Indices of the texts of each stream and the tokens it is padded to; the indices together are a
        permutation of ``range(n)``. A text longer than `pack_tokens` is a stream of its own, unpadded.

    Notes
    -----
    First-fit decreasing: at most 11/9 of the fewest streams and one more (Johnson 1973), and nearly no
    room left where short texts are many. The last stream ends at a multiple of 32 tokens: code is compiled
    for the full size and, the first time another one comes, once more for any. Of the slots of 24 texts of the
    wide mix (mean 120 tokens) 99.5 % hold real tokens, of 768 texts 99.98 %.
    """
    order = np.argsort(-lengths, kind="stable")
    alone = [(order[i : i + 1], int(lengths[order[i]])) for i in range(int((lengths > pack_tokens).sum()))]
    members: list[list[int]] = []
    room = np.full(len(order), pack_tokens, dtype=np.int64)
    for index in order[len(alone) :]:
        stream = int(np.argmax(room[: len(members) + 1] >= lengths[index]))  # the first one it fits
        if stream == len(members):
            members.append([])
        members[stream].append(int(index))
        room[stream] -= int(lengths[index])
    streams = [(np.array(texts, dtype=np.int64), pack_tokens) for texts in members]
    if streams:
        last = streams[-1][0]
        streams[-1] = last, min(-(-int(lengths[last].sum()) // _TILE) * _TILE, pack_tokens)
    empty = [(order[:0], min(_TILE, pack_tokens))] * (at_least - len(alone) - len(streams))
    return alone + streams + empty
