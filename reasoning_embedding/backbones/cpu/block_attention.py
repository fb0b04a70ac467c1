"""Full attention within each text of a pack, by batched products or torch's fused kernel, and its gradient."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .elementwise import Kernels
from .layout import Layout

#: Attention weights made at a time, at most: 8 MiB in float32.
_WEIGHTS = 1 << 21
#: Texts from which torch's fused kernel, which makes no weights, is faster forward in float32: 1.3 times at 2048 tokens.
_LONG = 1536


def attend(
    kernels: Kernels, layout: Layout, size: int, query: Tensor, key: Tensor, value: Tensor, scale: float
) -> Tensor:
    """softmax(scale Q K') V of each text; all in head-major order.

    Parameters
    ----------
    kernels : Kernels
        Elementwise functions of the compute dtype.
    layout : Layout
        The texts.
    size : int
        s, of a head.
    query : Tensor
        (T, H s).
    key, value : Tensor
        (T, H_kv s), H a multiple of H_kv; heads that share keys stand below each other.
    scale : float
        Factor of the scores.

    Returns
    -------
    Tensor
        (T, H s).
    """
    out = torch.empty_like(query)
    for q, k, v, o in _blocks(layout, size, query, key, value, out):
        if k.shape[1] >= _LONG and k.dtype == torch.float32:
            o.copy_(F.scaled_dot_product_attention(q[None], k[None], v[None], scale=scale)[0])
            continue
        torch.bmm(kernels.softmax(torch.bmm(q, k.mT), scale), v, out=o)
    return out


def attend_backward(
    kernels: Kernels,
    layout: Layout,
    size: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    upstream: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value; arguments as :func:`attend`, whose weights are made again.

    With weights P and upstream G: dV = P' G, dS = P (G V' - rowsum(P G V')) scale, dQ = dS K, dK = dS' Q.
    """
    by_query, by_key, by_value = (torch.empty_like(tensor) for tensor in (query, key, value))
    given = (query, key, value, upstream, by_query, by_key, by_value)
    for q, k, v, g, dq, dk, dv in _blocks(layout, size, *given):
        weights = kernels.softmax(torch.bmm(q, k.mT), scale)
        torch.bmm(weights.mT, g, out=dv)
        scores = kernels.softmax_backward(weights, torch.bmm(g, v.mT), scale)
        torch.bmm(scores, k, out=dq)
        torch.bmm(scores.mT, q, out=dk)
    return by_query, by_key, by_value


def _blocks(layout: Layout, size: int, *tensors: Tensor) -> Iterator[list[Tensor]]:
    """Views (heads, rows, s) of heads that are attended at once; query heads of one key are below each other."""
    groups = max(tensor.shape[1] for tensor in tensors) // min(tensor.shape[1] for tensor in tensors)
    for length, tokens in layout.runs:
        views = [tensor[tokens].view(-1, length, size) for tensor in tensors]
        shared = min(map(len, views))
        views = [view.view(shared, -1, size) for view in views]
        step = max(_WEIGHTS // (length * length * groups), 1)
        yield from ([view[begin : begin + step] for view in views] for begin in range(0, shared, step))
