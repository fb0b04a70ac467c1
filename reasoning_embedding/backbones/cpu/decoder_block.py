"""One decoder layer as one function: its forward, and its gradient by hand.

Autograd keeps an input of every elementwise operation. Here a layer keeps its input and what matrix products
give (queries, keys and values, attention's output and its projection, gate and up); everything between is made
again in the backward pass, in one sweep over memory each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from . import onednn
from .block_attention import attend, attend_backward
from .elementwise import Kernels
from .layout import Layout


@dataclass(frozen=True)
class Weights:
    """The weights of a layer in the compute dtype, gains as they are.

    Attributes
    ----------
    qkv : Tensor
        ((H + 2 H_kv) s, d): queries', keys' and values' below each other.
    out : Tensor
        (d, H s).
    opened : Tensor
        (2 f, d): gate's and up's.
    down : Tensor
        (d, f).
    before, after : Tensor
        (d,) gains of the norms before attention and after it.
    of_query, of_key : Tensor or None
        (s,) gains of the norms of each query and key head.
    bias : Tensor or None
        ((H + 2 H_kv) s,) of queries, keys and values.
    """

    qkv: Tensor
    out: Tensor
    opened: Tensor
    down: Tensor
    before: Tensor
    after: Tensor
    of_query: Tensor | None
    of_key: Tensor | None
    bias: Tensor | None

    @classmethod
    def of(cls, parameters: Sequence[Tensor | None], compute: torch.dtype) -> Weights:
        """Of :class:`DecoderBlock`'s parameters; copies but for `out`, `down` and gains of the compute dtype."""
        q, k, v, out, gate, up, down, *norms = cast("list[Tensor]", parameters[:11])
        bias = [part for part in parameters[11:] if part is not None]
        return cls(
            torch.cat([q, k, v]).to(compute),
            out.to(compute),
            torch.cat([gate, up]).to(compute),
            down.to(compute),
            *norms,
            torch.cat(bias).to(compute) if bias else None,
        )

    def reordered(self, rows: int) -> Weights:
        """Return copies of the matrices in the blocks that oneDNN multiplies about `rows` rows by; for forwards alone."""
        names = ("qkv", "out", "opened", "down")
        matrices = {name: onednn.reordered(getattr(self, name), rows) for name in names}
        return replace(self, **matrices)


@dataclass(frozen=True)
class LayerShape:
    """What a layer's weights do not say: head size, widths of queries and keys, and two constants."""

    size: int
    widths: tuple[int, int, int]
    scale: float
    eps: float


@dataclass(frozen=True)
class Call:
    """One forward of one layer, but for its input and parameters."""

    compute: torch.dtype
    shape: LayerShape
    kernels: Kernels
    layout: Layout
    rotary: tuple[Tensor, Tensor]

    def heads(self, weights: Weights, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, normalised and rotated, and values, all head-major."""
        query, key, value = qkv.split(self.shape.widths, 1)
        go, size, eps = self.kernels.to_heads, self.shape.size, self.shape.eps
        return (
            go(query, self.layout, size, weights.of_query, eps, self.rotary),
            go(key, self.layout, size, weights.of_key, eps, self.rotary),
            go(value, self.layout, size),
        )


def decode(x: Tensor, call: Call, w: Weights) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x + attention(norm(x)), and on that its MLP: (T, d) -> (T, d) residual stream; then what products gave.

    Those are queries, keys and values (T, (H + 2 H_kv) s), attention's output (T, H s), its projection (T, d), gates and
    ups (T, 2 f).
    """
    kernels, eps, size = call.kernels, call.shape.eps, call.shape.size
    _, normed = kernels.add_norm(x, None, w.before, eps, keep=False)
    qkv = _product(normed, w.qkv, w.bias)
    out = attend(kernels, call.layout, size, *call.heads(w, qkv), call.shape.scale)
    attended = torch.empty_like(out)
    kernels.from_heads(out, call.layout, size, attended)
    branch = _product(attended, w.out)
    h, normed = kernels.add_norm(x, branch, w.after, eps, keep=True)
    opened = _product(normed, w.opened)
    assert h is not None
    return _add_product(h, kernels.swiglu(opened), w.down), qkv, attended, branch, opened


class DecoderBlock(torch.autograd.Function):
    """:func:`decode` with a gradient.

    Beside `x` and the :class:`Call` it takes the parameters that its gradients belong to: queries', keys',
    values', output, gate, up and down projection, the norms before and after attention, those of query and
    key heads (or None), the biases of queries, keys and values (or None).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Call, *parameters: Tensor | None) -> Tensor:
        """Keep what matrix products give."""
        # Weights are gathered for each pass: it costs little, and the fused optimizer does not tell when they change.
        out, *kept = decode(x, call, Weights.of(parameters, call.compute))
        ctx.save_for_backward(x, *kept, *parameters)
        ctx.call = call
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of `x` and the parameters."""
        (upstream,) = gradients
        x, qkv, attended, branch, opened, *parameters = ctx.saved_tensors
        call: Call = ctx.call
        w = Weights.of(parameters, call.compute)
        kernels, eps, size = call.kernels, call.shape.eps, call.shape.size
        upstream = upstream.contiguous()
        half = upstream.to(opened.dtype)

        # What is not needed again is dropped at once: at the widths of an MLP it is a third of the working memory.
        by_opened, gated = kernels.swiglu_backward(opened, half @ w.down)
        by_down = _weight_gradient(half, gated)
        del gated
        _, normed = kernels.add_norm(x, branch, w.after, eps, keep=False)
        by_gate_up = _weight_gradient(by_opened, normed)
        h, half, by_after = kernels.norm_backward(x, branch, w.after, eps, by_opened @ w.opened, upstream)
        del by_opened, normed

        by_out = _weight_gradient(half, attended)
        to_heads = kernels.to_heads(half @ w.out, call.layout, size)
        by_heads = attend_backward(
            kernels, call.layout, size, *call.heads(w, qkv), call.shape.scale, to_heads
        )
        del half, to_heads
        by_qkv = torch.empty_like(qkv)
        gains = [
            kernels.from_heads(grad, call.layout, size, part, given, gain, eps, angles)
            for grad, part, given, gain, angles in zip(
                by_heads,
                by_qkv.split(call.shape.widths, 1),
                qkv.split(call.shape.widths, 1),
                (w.of_query, w.of_key, None),
                (call.rotary, call.rotary, (None, None)),
                strict=True,
            )
        ]
        del by_heads
        _, normed = kernels.add_norm(x, None, w.before, eps, keep=False)
        by_weights = _weight_gradient(by_qkv, normed)
        by_x, _, by_before = kernels.norm_backward(x, None, w.before, eps, by_qkv @ w.qkv, h)

        biases = (None,) * 3 if w.bias is None else by_qkv.sum(0, dtype=x.dtype).split(call.shape.widths)
        return (
            by_x,
            None,
            *by_weights.split(call.shape.widths),
            by_out,
            *by_gate_up.chunk(2),
            by_down,
            by_before,
            by_after,
            *gains[:2],
            *biases,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if weight.is_mkldnn:
        return onednn.linear(x, weight, bias)
    return torch.nn.functional.linear(x, weight, bias)


def _add_product(h: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """H + x weight'; `h` is given up."""
    if weight.is_mkldnn:
        return onednn.linear_with(x, weight, h, "add")
    return h.addmm_(x, weight.T) if h.dtype == x.dtype else h.add_(x @ weight.T)


def _weight_gradient(upstream: Tensor, x: Tensor) -> Tensor:
    """upstream' x, with the wider one second: in float32 a fifth faster at three times the width."""
    return upstream.T @ x if upstream.shape[1] <= x.shape[1] else (x.T @ upstream).T
