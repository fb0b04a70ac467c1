"""Packs: texts of token ids laid end to end, as the encoder takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Pack:
    """n texts of T tokens in all, without padding.

    Attributes
    ----------
    input_ids : Tensor
        (T,) int64.
    position_ids : Tensor
        (T,) int64, starting at 0 in each text.
    cu_seqlens : Tensor
        (n+1,) int32, where each text begins and the last one ends.
    max_length : int
        Tokens of the longest text.
    prompt_lengths : Tensor
        (n,) int64, leading tokens of each text that are instruction.
    """

    input_ids: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    max_length: int
    prompt_lengths: Tensor

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1

    def to(self, device: torch.device | str) -> Pack:
        """Return the pack on `device`."""
        return Pack(
            self.input_ids.to(device, non_blocking=True),
            self.position_ids.to(device, non_blocking=True),
            self.cu_seqlens.to(device, non_blocking=True),
            self.max_length,
            self.prompt_lengths.to(device, non_blocking=True),
        )

    def model_inputs(self) -> dict[str, object]:
        """Keyword arguments of a stock transformers decoder under ``packed`` attention."""
        return {
            "input_ids": self.input_ids[None],
            "position_ids": self.position_ids[None],
            "attention_mask": None,
            "use_cache": False,
            "cu_seq_lens_q": self.cu_seqlens,
            "cu_seq_lens_k": self.cu_seqlens,
            "max_length_q": self.max_length,
            "max_length_k": self.max_length,
        }


def make_pack(texts: Sequence[np.ndarray], prompt_lengths: Sequence[int] | np.ndarray) -> Pack:
    """Lay `texts` (arrays of token ids) end to end, in their order."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    positions = np.arange(offsets[-1], dtype=np.int64) - np.repeat(offsets[:-1], lengths)
    return Pack(
        torch.from_numpy(np.concatenate(texts).astype(np.int64)),
        torch.from_numpy(positions),
        torch.from_numpy(offsets.astype(np.int32)),
        int(lengths.max()),
        torch.from_numpy(np.asarray(prompt_lengths, dtype=np.int64)),
    )


def plan_packs(lengths: np.ndarray, pack_tokens: int) -> list[np.ndarray]:
    """Cut texts into packs of at most `pack_tokens` tokens, longest texts first.

    Sorting puts equally long texts side by side, which is what attention on a CPU wants. A text longer
    than the budget becomes a pack of its own.

    Parameters
    ----------
    lengths : np.ndarray
        (n,) tokens of each text.
    pack_tokens : int
        Most tokens in a pack.

    Returns
    -------
    list of np.ndarray
        Indices of the texts of each pack; together a permutation of ``range(n)``.
    """
    order = np.argsort(-lengths, kind="stable")
    packs: list[np.ndarray] = []
    start, tokens = 0, 0
    for position, index in enumerate(order):
        if tokens + lengths[index] > pack_tokens and position > start:
            packs.append(order[start:position])
            start, tokens = position, 0
        tokens += int(lengths[index])
    if start < len(order):
        packs.append(order[start:])
    return packs


def make_packs(
    texts: Sequence[np.ndarray], prompt_lengths: Sequence[int] | np.ndarray, pack_tokens: int
) -> list[tuple[Pack, np.ndarray]]:
    """Plan and lay out packs; each comes with the indices of its texts in `texts`."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    prompts = np.asarray(prompt_lengths)
    return [
        (make_pack([texts[index] for index in indices], prompts[indices]), indices)
        for indices in plan_packs(lengths, pack_tokens)
    ]
