"""Compiled decoder layers around an attention that stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any, cast

import torch
from torch import nn

from .attention import packed_attention, register
from .layers import PACKED, decoder_layers

#: Share of a layer's activations that the compiler keeps where elementwise work is to be made again: what
#: ``selective`` keeps without it. Measured in bf16, 6 layers of width 256: 13.4 KiB a token and layer fall to 5.8.
_SELECTIVE = 0.5


def compile_layers(model: nn.Module, *, selective: bool = False, backend: str = "inductor") -> None:
    """Compile each decoder layer of `model` with torch.compile, in place; parameter names stay the same.

    Variable-length attention is opaque: a layer becomes one compiled part before it (norm, projections,
    rotary embedding) and one after it (projection, residual, norm, MLP, residual). All layers share the
    code of the first, which is made twice: for streams of full size, and for any other
    (:func:`.packs.streams_for`).

    Parameters
    ----------
    model : nn.Module
        A stock decoder under packed attention; layers that are checkpointed stay so.
    selective : bool
        Let the compiler make elementwise work again in the backward pass (for this process), in the place of
        selective checkpointing, which cannot look into compiled code.
    backend : str
        Of torch.compile.
    """
    _make_attention_opaque()
    if selective:
        from torch._functorch import config  # of the compiler, which takes seconds to import

        config.activation_memory_budget = _SELECTIVE
    for layer in cast("Iterable[Any]", decoder_layers(model)):
        if getattr(layer, "gradient_checkpointing", False):
            # Nothing that calls a checkpoint is compiled, so what the checkpoint calls has to be.
            layer._gradient_checkpointing_func = _compiled_within(layer._gradient_checkpointing_func, backend)
        else:
            layer.compile(backend=backend)


def _compiled_within(checkpoint: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """Return a checkpoint that compiles what it is given: a partial of one and the same function of a layer."""
    compiled: dict[Callable[..., Any], Callable[..., Any]] = {}

    def run(function: partial[Any], *args: Any) -> Any:
        if function.func not in compiled:
            compiled[function.func] = torch.compile(function.func, backend=backend)
        return checkpoint(partial(compiled[function.func], *function.args, **function.keywords), *args)

    return run


@cache
def _make_attention_opaque() -> None:
    from transformers import AttentionInterface

    register()
    # Not where attention is defined: the decorator imports the compiler, which takes seconds.
    AttentionInterface.register(PACKED, torch.compiler.disable(packed_attention))
