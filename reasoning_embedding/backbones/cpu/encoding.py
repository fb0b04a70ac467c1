"""Layers in the form a CPU computes fastest, for forwards without gradients.

A weight lies in memory as (out, in); oneDNN's kernels want it in blocks. Reordered once for many packs, matrix
products run about 1.2 times as fast in float32, and the gate of a SwiGLU block is applied while its product is
still in cache. Layers that run as one function (:mod:`.fused_layers`) take their weights in blocks too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from reasoning_embedding.backbones.layers import is_plain_linear
from reasoning_embedding.backbones.precision import multiplies_bfloat16

from .fused_layers import encoding_layers
from .onednn import linear, linear_with, reordered, reorders_weights

_DTYPES = (torch.float32, torch.bfloat16)
#: Output projection and both inputs of a SwiGLU block, by the names all of transformers' decoders give them.
_SWIGLU = ("down_proj", "gate_proj", "up_proj")


@contextmanager
def fast_encoding(model: nn.Module, *, tokens: int) -> Generator[None]:
    """Let the layers of a model use reordered copies of their weights.

    Parameters
    ----------
    model : nn.Module
        Any model; layers on another device than a CPU, of another dtype than float32 and bfloat16, whose
        weights are sharded, or that are no plain ``nn.Linear`` stay as they are.
    tokens : int
        Tokens of a forward as a rule; other counts are right too.

    Notes
    -----
    The copies live inside the block, at the cost of the weights' memory; a weight changed within it is not
    seen, and no gradient flows. Results differ from the stock layers' by rounding. Where the processor has no
    bfloat16 products the copies are in float32, twice as large.
    """
    with encoding_layers(model, tokens=tokens) as fused:
        inside = {part for layer in fused for part in layer.modules()}
        with _linears([module for module in model.modules() if module not in inside], tokens):
            yield


@contextmanager
def _linears(modules: Iterable[nn.Module], tokens: int) -> Generator[None]:
    changed: list[nn.Module] = []
    proven: dict[type[nn.Module], bool] = {}
    try:
        if reorders_weights():
            for module in modules:
                forward = _swiglu(module, tokens, proven) if _is_swiglu(module) else None
                if forward is None and isinstance(module, nn.Linear) and _is_plain(module):
                    forward = _linear(module, tokens)
                if forward is not None:
                    module.forward = forward
                    changed.append(module)
        yield
    finally:
        for module in changed:
            del module.forward


def _is_plain(module: nn.Module | None) -> bool:
    return is_plain_linear(module) and module.weight.dtype in _DTYPES


def _is_swiglu(module: nn.Module) -> bool:
    # transformers has a class of its own for SiLU.
    activation = type(getattr(module, "act_fn", None)).__name__
    return activation in ("SiLU", "SiLUActivation") and all(
        _is_plain(getattr(module, name, None)) for name in _SWIGLU
    )


def _reordered(layer: nn.Linear, tokens: int) -> tuple[Tensor, Tensor | None]:
    dtype = _compute_dtype(layer)
    bias = None if layer.bias is None else layer.bias.detach().to(dtype)
    return reordered(layer.weight.detach().to(dtype), tokens), bias


def _compute_dtype(layer: nn.Linear) -> torch.dtype:
    return layer.weight.dtype if multiplies_bfloat16() else torch.float32


def _linear(layer: nn.Linear, tokens: int) -> Callable[[Tensor], Tensor]:
    dtype, (weight, bias) = _compute_dtype(layer), _reordered(layer, tokens)
    return lambda x: linear(x.to(dtype), weight, bias).to(x.dtype)


def _swiglu(
    block: nn.Module, tokens: int, proven: dict[type[nn.Module], bool]
) -> Callable[[Tensor], Tensor] | None:
    """Return down(silu(gate(x)) * up(x)), or None where that is not what the block computes."""
    layers: list[nn.Linear] = [getattr(block, name) for name in _SWIGLU]
    dtype = _compute_dtype(layers[0])
    (down, down_bias), (gate, gate_bias), (up, up_bias) = [_reordered(layer, tokens) for layer in layers]

    def forward(x: Tensor) -> Tensor:
        given = x.to(dtype)
        opened = linear(given, gate, gate_bias, "swish")
        product = linear_with(given, up, opened, "mul", up_bias)
        return linear(product, down, down_bias).to(x.dtype)

    if type(block) not in proven:
        probe = torch.linspace(-1.0, 1.0, layers[0].out_features, dtype=layers[0].weight.dtype)[None]
        expected = block(probe)
        tolerance = 0.05 * expected.abs().max().item()
        proven[type(block)] = torch.allclose(forward(probe), expected, rtol=0, atol=tolerance)
    return forward if proven[type(block)] else None
