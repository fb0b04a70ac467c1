"""From token states to one vector a text."""

from __future__ import annotations

import torch
from torch import Tensor

from .packs import Pack
from .readout import PoolingMode


def pool(states: Tensor, pack: Pack, mode: PoolingMode = "mean", *, include_prompt: bool) -> Tensor:
    """Pool the token states of each text of a pack, as sentence-transformers pools each text alone.

    Parameters
    ----------
    states : Tensor
        (T, D) states of the last layer.
    pack : Pack
        The pack of T tokens and n texts.
    mode : {"mean", "last", "weighted_mean", "first"}
        What is taken; see :class:`.readout.Readout`.
    include_prompt : bool
        Whether instruction tokens are pooled. Each text has a token beyond them.

    Returns
    -------
    Tensor
        (n, D), summed and divided in at least float32 whatever the dtype of `states`.
    """
    texts, lengths = len(pack), pack.cu_seqlens.diff().long()
    skipped = torch.zeros_like(lengths)
    if not include_prompt:
        skipped[:texts] = pack.prompt_lengths
    if mode in ("last", "first"):
        ends = pack.cu_seqlens.long()
        taken = ends[1 : texts + 1] - 1 if mode == "last" else ends[:texts] + skipped[:texts]
        return _precise(states[taken])
    states = _precise(states)
    text = torch.repeat_interleave(
        torch.arange(len(lengths), device=states.device), lengths, output_size=len(states)
    )
    if mode == "weighted_mean":
        # A text of L tokens of which p are left out has weights p + 1, ..., L.
        weights = (pack.position_ids + 1).to(states.dtype)
        total = (lengths * (lengths + 1) - skipped * (skipped + 1))[:texts] / 2
        total = total.to(states.dtype)
        states = states * weights[:, None]
    else:
        total = (lengths - skipped)[:texts]
    if not include_prompt:
        states = states * (pack.position_ids >= skipped[text])[:, None]
    # Dummy texts are summed too, and left out.
    sums = states.new_zeros(len(lengths), states.shape[1]).index_add(0, text, states)[:texts]
    return sums / total[:, None]


def _precise(states: Tensor) -> Tensor:
    return states if states.dtype == torch.float64 else states.float()
