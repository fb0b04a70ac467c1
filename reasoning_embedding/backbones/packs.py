"""Packs: texts of token ids laid end to end, as the encoder takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .dropout import KEYS, token_keys
from .packing import packs_for, streams_for

#: Boundaries of a padded pack are this many, or a multiple of it: a fixed shape for compiled code.
_BOUNDARIES = 64


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
        Pad packs to few fixed token counts (:func:`.packing.streams_for`), for compiled GPU steps; else
        slices of the length-sorted list (:func:`.packing.packs_for`), without padding.
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
