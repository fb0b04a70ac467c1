"""Dropout that belongs to a text: the same for any number of ranks, any packs and any memory mode.

Drawn from a generator, a mask depends on everything drawn before it, so another number of ranks would be
another experiment, and a forward that is repeated needs the generator's old state. Here a mask is a hash of
(seed, step, text, token, feature, place in the model): nothing is drawn, and nothing needs saving.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .layers import decoder_layers

#: Keyword argument under which the keys of a pack's tokens travel through a stock decoder.
KEYS = "dropout_keys"


def text_keys(texts: int, *parts: int) -> np.ndarray:
    """Return a key for each text of a step's batch.

    Parameters
    ----------
    texts : int
        Number of texts n.
    *parts : int
        What the dropout of a step is a function of: seed and step.

    Returns
    -------
    np.ndarray
        (n,) int64.
    """
    start = int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little", signed=True)
    return _mix(torch.arange(texts, dtype=torch.int64) + start).numpy()


def token_keys(keys: Tensor, positions: Tensor) -> Tensor:
    """Combine the key of each token's text with its position in the text; int64, of one shape."""
    return _mix(keys ^ _mix(positions))


def keep_mask(keys: Tensor, columns: int, probability: float, *place: int) -> Tensor:
    """Tell which entries are kept.

    Parameters
    ----------
    keys : Tensor
        (...) int64, one a row.
    columns : int
        Entries of a row.
    probability : float
        Of an entry being dropped.
    *place : int
        Where in the model: other places, other masks.

    Returns
    -------
    Tensor
        (..., columns) bool.

    Notes
    -----
    The finaliser of a 32-bit hash (two multiplications and a shift between them; Wellons 2018, *lowbias32*)
    of a row's key and a column's, compared with the probability: seven elementwise operations on int32.
    """
    for part in place:
        keys = _mix(keys + part)
    column = _mix(torch.arange(columns, device=keys.device) - 1)
    mixed = keys.to(torch.int32).unsqueeze(-1) ^ column.to(torch.int32)
    mixed *= 0x7FEB352D
    mixed ^= (mixed >> 15) & 0x1FFFF  # a shift of int32 drags the sign along
    mixed *= 0x846CA68B - (1 << 32)
    return mixed >= round(probability * 2**32) - 2**31


def _mix(values: Tensor) -> Tensor:
    """Spread int64 values over all of int64, one to one (splitmix64, Steele et al. 2014)."""
    values = values + (0x9E3779B97F4A7C15 - (1 << 64))
    values = (values ^ ((values >> 30) & ((1 << 34) - 1))) * (0xBF58476D1CE4E5B9 - (1 << 64))
    values = (values ^ ((values >> 27) & ((1 << 37) - 1))) * (0x94D049BB133111EB - (1 << 64))
    return values ^ ((values >> 31) & ((1 << 33) - 1))


class TextDropout(nn.Module):
    """Takes the place of an ``nn.Dropout``; without keys it is one.

    Parameters
    ----------
    probability : float
        Of an entry being zeroed.
    place : int
        Number of the module in its model.
    """

    def __init__(self, probability: float, place: int) -> None:
        super().__init__()
        self.probability, self.place = probability, place
        self.keys: Tensor | None = None

    def forward(self, states: Tensor) -> Tensor:
        """Drop entries of (..., D) states, whose tokens have keys of shape (...)."""
        if not self.training:
            return states
        if self.keys is None:
            return nn.functional.dropout(states, self.probability)
        keep = keep_mask(self.keys, states.shape[-1], self.probability, self.place)
        return torch.where(keep, states / (1 - self.probability), 0)

    def extra_repr(self) -> str:
        """Show the probability."""
        return f"p={self.probability}"


def use_text_dropout(model: nn.Module) -> None:
    """Replace every ``nn.Dropout`` of a stock decoder, or of its adapters, in place.

    The keys of a forward come with the keyword argument :data:`KEYS`. A layer that is recomputed in the
    backward pass, after other packs were embedded, gets it again; recomputing may call the layer's ``forward``
    without its hooks, so its attention, which comes first and is given the same, hands the keys out too.
    """
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Dropout) and child.p > 0
    ]
    for place, (parent, name, child) in enumerate(found):
        setattr(parent, name, TextDropout(child.p, place))
    if found:
        model.register_forward_pre_hook(partial(_hand_out, model), with_kwargs=True)
        for layer in decoder_layers(model):
            for part in (layer, *layer.children()):
                part.register_forward_pre_hook(partial(_hand_out_again, layer), with_kwargs=True)


def _hand_out(owner: nn.Module, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
    for part in owner.modules():
        if isinstance(part, TextDropout):
            part.keys = kwargs.get(KEYS)


def _hand_out_again(owner: nn.Module, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
    if KEYS in kwargs:  # its MLP and norms get none
        _hand_out(owner, module, args, kwargs)
