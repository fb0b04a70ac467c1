"""Running the decoder layers of a stock model by :mod:`.decoder_block`, where it computes the same."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from reasoning_embedding.backbones.layers import attends_to_whole_texts, is_plain_linear

from .decoder_block import Call, DecoderBlock, LayerShape, Weights, decode
from .elementwise import kernels_for
from .elementwise_native import LONGEST
from .layout import Layout
from .onednn import reorders_weights

#: Layers that are: norm, attention with rotary embedding, residual, norm, SwiGLU, residual.
_LAYERS = {"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer"}
_INPUTS = ("q_proj", "k_proj", "v_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")


def fuse_layers(model: nn.Module, compute: torch.dtype = torch.float32) -> int:
    """Let the decoder layers of a stock model on a CPU run as one function each, in place.

    Parameters
    ----------
    model : nn.Module
        A stock decoder under packed attention; its modules keep their parameters, and their names.
    compute : torch.dtype
        What the layers will compute in.

    Returns
    -------
    int
        Layers that can run so: 0 for another architecture, another device, with adapters, or where the kernels of
        `compute` cannot be built.

    Notes
    -----
    A layer goes through its stock forward where the function would not compute the same: causal attention,
    dropout, texts beyond :data:`LONGEST`, padded batches, hooks inside the layer, or in a dtype without kernels.
    Measured on one core with AMX: the functions in torch alone take 1.3 times as long as the stock layers;
    compiled, 0.55 times in bf16 and 0.8 in fp32.
    """
    layers = [module for module in model.modules() if _is_known(module)]
    if not layers or kernels_for(compute) is None:  # in this order: kernels that nothing runs are not built
        return 0
    shared = _Pack()
    for layer in layers:
        layer.forward = _FusedForward(layer, shared)
    return len(layers)


@contextmanager
def encoding_layers(model: nn.Module, *, tokens: int) -> Generator[list[nn.Module]]:
    """Let float32 layers run as by :func:`fuse_layers`, forward alone, with weights laid out once for many packs.

    Parameters
    ----------
    model : nn.Module
        Any model.
    tokens : int
        Tokens of a forward as a rule; other counts are right too.

    Yields
    ------
    list of nn.Module
        The layers that do, inside the block; none with gradients, or where :func:`fuse_layers` would find none. The
        copies of their weights live as long; a weight changed meanwhile is not seen.
    """
    layers: list[Any] = []
    if reorders_weights():
        layers = [module for module in model.modules() if _is_known(module) and _encodes_in_float32(module)]
    if layers and kernels_for(torch.float32) is None:
        layers = []
    before = [vars(layer).get("forward") for layer in layers]
    shared = _Pack()
    try:
        for layer in layers:
            weights = Weights.of(_parameters(layer), torch.float32).reordered(tokens)
            layer.forward = _FusedForward(layer, shared, weights)
        yield layers
    finally:
        for layer, forward in zip(layers, before, strict=True):
            if forward is not None:
                layer.forward = forward
            elif "forward" in vars(layer):
                del layer.forward


def _encodes_in_float32(layer: Any) -> bool:
    attends = attends_to_whole_texts(layer.self_attn.config)
    return attends and all(_is_plain(p, torch.float32) for p in layer.parameters())


def _is_plain(parameter: nn.Parameter, dtype: torch.dtype) -> bool:
    """Whether it is of a dtype, and no part of a sharded one."""
    return parameter.dtype == dtype and type(parameter) is nn.Parameter


def _is_known(layer: nn.Module) -> bool:
    """Whether a layer is of a known kind, and every part of it as transformers made it."""
    kind = type(layer)
    if kind.__name__ not in _LAYERS or not kind.__module__.startswith("transformers."):
        return False
    if not isinstance(vars(layer).get("forward"), _FusedForward | None):  # hooks of others stand there
        return False
    inputs, rest = _linears(layer)
    attention: Any = layer.self_attn
    return (
        all(is_plain_linear(part) for part in inputs + rest)
        and len({part.bias is None for part in inputs}) == 1
        and all(part.bias is None for part in rest)
        and getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None)) is None
        and attention.config.hidden_act == "silu"
        and all(p.device.type == "cpu" for p in layer.parameters())
    )


def _linears(layer: Any) -> tuple[list[nn.Linear], list[nn.Linear]]:
    attention, mlp = layer.self_attn, layer.mlp
    rest = [attention.o_proj, *(getattr(mlp, name) for name in _MLP)]
    return [getattr(attention, name) for name in _INPUTS], rest


class _Pack:
    """Layout and rotary tables of the pack that the layers of a model are working on."""

    def __init__(self) -> None:
        self._given: tuple[Any, ...] = ()
        self._made: Any = None

    def made(self, boundaries: Tensor, angles: tuple[Tensor, Tensor]) -> tuple[Layout, tuple[Tensor, Tensor]]:
        given = (boundaries, *angles)
        if len(self._given) != len(given) or any(a is not b for a, b in zip(self._given, given, strict=True)):
            self._made = Layout.of(boundaries), (angles[0][0].contiguous(), angles[1][0].contiguous())
            self._given = given
        return self._made


class _FusedForward:
    """Takes the place of a layer's ``forward``; with `weights` made before, without gradient."""

    def __init__(self, layer: nn.Module, pack: _Pack, weights: Weights | None = None) -> None:
        self._layer: Any = layer
        self._pack, self._weights = pack, weights

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = self._layer
        compute = _compute_dtype(hidden_states) if self._weights is None else hidden_states.dtype
        kernels = None if args or not self._applies(hidden_states, kwargs) else kernels_for(compute)
        if kernels is None:
            return type(layer).forward(layer, hidden_states, *args, **kwargs)
        attention = layer.self_attn
        layout, rotary = self._pack.made(kwargs["cu_seq_lens_q"], kwargs["position_embeddings"])
        widths = tuple(part.out_features for part in _linears(layer)[0])
        shape = LayerShape(
            int(attention.head_dim),
            cast("tuple[int, int, int]", widths),
            float(attention.scaling),
            float(layer.input_layernorm.variance_epsilon),
        )
        call = Call(compute, shape, kernels, layout, rotary)
        if layer.training and layer.gradient_checkpointing:  # transformers asks for it in the stock forward
            return layer._gradient_checkpointing_func(self._run, hidden_states, call)
        return self._run(hidden_states, call)

    def _run(self, states: Tensor, call: Call) -> Tensor:
        x = states[0].contiguous()
        with torch.autocast("cpu", enabled=False):
            if self._weights is not None:
                return decode(x, call, self._weights)[0][None]
            return DecoderBlock.apply(x, call, *_parameters(self._layer))[None]

    def _applies(self, states: Tensor, kwargs: dict[str, Any]) -> bool:
        layer = self._layer
        angles = kwargs.get("position_embeddings")
        packed = kwargs.get("cu_seq_lens_q") is not None and kwargs.get("attention_mask") is None
        random = layer.training and layer.self_attn.attention_dropout > 0
        return (
            packed
            and angles is not None
            and states.shape[0] == 1
            and states.dtype in (torch.float32, torch.float64)
            and all(_is_plain(p, states.dtype) for p in layer.parameters())
            and all(angle.dtype == states.dtype for angle in angles)
            and attends_to_whole_texts(layer.self_attn.config)
            and kwargs["max_length_q"] <= LONGEST
            and not random
            and not any(p._forward_hooks or p._forward_pre_hooks for p in layer.modules() if p is not layer)
        )


def _parameters(layer: Any) -> list[Tensor | None]:
    """Those that :class:`DecoderBlock` takes, in its order."""
    inputs, rest = _linears(layer)
    heads = [getattr(layer.self_attn, name, None) for name in ("q_norm", "k_norm")]
    norms = [layer.input_layernorm, layer.post_attention_layernorm, *heads]
    weights = [getattr(part, "weight", None) for part in (*inputs, *rest, *norms)]
    return [*weights, *(part.bias for part in inputs)]


def _compute_dtype(states: Tensor) -> torch.dtype:
    autocast = torch.is_autocast_enabled("cpu") and states.dtype == torch.float32
    return torch.get_autocast_dtype("cpu") if autocast else states.dtype
