"""From token states to one vector a text."""

from __future__ import annotations

import torch
from torch import Tensor

from .packs import Pack


def mean_pool(states: Tensor, pack: Pack, *, include_prompt: bool) -> Tensor:
    """Average the token states of each text of a pack.

    Parameters
    ----------
    states : Tensor
        (T, D) states of the last layer.
    pack : Pack
        The pack of T tokens and n texts.
    include_prompt : bool
        Whether instruction tokens count in the mean.

    Returns
    -------
    Tensor
        (n, D), summed and divided in at least float32 whatever the dtype of `states`.
    """
    states = states if states.dtype == torch.float64 else states.float()
    lengths = pack.cu_seqlens.diff().long()
    text = torch.repeat_interleave(
        torch.arange(len(lengths), device=states.device), lengths, output_size=len(states)
    )
    counts = lengths[: len(pack)]
    if not include_prompt:
        prompts = torch.zeros_like(lengths)
        prompts[: len(pack)] = pack.prompt_lengths
        states = states * (pack.position_ids >= prompts[text])[:, None]
        counts = counts - pack.prompt_lengths
    # Dummy texts are summed too, and left out.
    sums = states.new_zeros(len(lengths), states.shape[1]).index_add(0, text, states)[: len(pack)]
    return sums / counts[:, None]
