"""Compiled decoder layers around an attention that stays as it is."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from .attention import NAME, packed_attention, register
from .layers import decoder_layers


def compile_layers(model: nn.Module, *, backend: str = "inductor") -> None:
    """Compile each decoder layer of `model` with torch.compile, in place; parameter names stay the same.

    Variable-length attention is opaque: a layer becomes one compiled part before it (norm, projections,
    rotary embedding) and one after it (projection, residual, norm, MLP, residual). All layers share the
    code of the first, and streams of fixed size (:func:`.packing.streams_for`) keep their shapes few.

    Parameters
    ----------
    model : nn.Module
        A stock decoder under packed attention.
    backend : str
        Of torch.compile.
    """
    _make_attention_opaque()
    for layer in decoder_layers(model):
        layer.compile(backend=backend)


@cache
def _make_attention_opaque() -> None:
    from transformers import AttentionInterface

    register()
    # Not where attention is defined: the decorator imports the compiler, which takes seconds.
    AttentionInterface.register(NAME, torch.compiler.disable(packed_attention))
