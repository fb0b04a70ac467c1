"""Full attention in bfloat16 on a CPU, where the fused kernel is slow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from reasoning_embedding.backbones.precision import multiplies_bfloat16

#: Texts up to this long are attended by batched products (if the processor has them), longer ones by the fused
#: kernel in float32.
_SHORT = 128


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor | None:
    """Attend from every row of `query` to all of `key` where products are bfloat16 ones on a CPU.

    Parameters
    ----------
    query : Tensor
        (n, H, R, D) bfloat16, or float32 under autocast (rotary embedding gives that).
    key, value : Tensor
        (n, H, L, D) likewise.
    scale : float
        Factor of the scores.

    Returns
    -------
    Tensor or None
        (n, H, R, D) bfloat16; None where torch's own kernel is as good: on another device, in another dtype.

    Notes
    -----
    Measured on one core, forward and backward, head_dim 64: torch's fused kernel takes 12 times as long as
    products at 30 to 60 tokens and 3 times at 120; in float32 it is 1.4 times as fast at 250. Products round
    the scores to bfloat16, which leaves the gradient of a step as far from float32's as it was (1 %). The softmax is
    computed in float32, but in inference mode, where products of any length take half the time of the fused kernel.
    """
    if not _computes_in_half(query):
        return None
    half = torch.bfloat16
    if query.dtype == half and torch.is_inference_mode_enabled() and multiplies_bfloat16():
        # Memory for all the scores, which training has no room for.
        flat_keys = key.transpose(2, 3).flatten(0, 1)
        scores = torch.baddbmm(query.new_zeros(()), query.flatten(0, 1), flat_keys, beta=0, alpha=scale)
        return torch.bmm(scores.softmax(-1), value.flatten(0, 1)).view(query.shape)
    if key.shape[2] <= _SHORT and multiplies_bfloat16():
        flat = (tensor.to(half).flatten(0, 1) for tensor in (query, key, value))
        return BatchedAttention.apply(*flat, scale).view(query.shape)
    with torch.autocast("cpu", enabled=False):
        out = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), scale=scale)
    return out.to(half)


def _computes_in_half(tensor: Tensor) -> bool:
    """Whether products of `tensor` are bfloat16 ones on a CPU: by its dtype, or by autocast."""
    if tensor.device.type != "cpu":
        return False
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return tensor.dtype == torch.bfloat16 or (autocast and tensor.dtype == torch.float32)


class BatchedAttention(torch.autograd.Function):
    """softmax(scale Q K') V by batched products; keeps Q, K and V alone and makes the weights again."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Shapes (m, R, D), (m, L, D), (m, L, D) -> (m, R, D)."""
        ctx.save_for_backward(query, key, value)
        ctx.scale = scale
        return torch.bmm(_weights(query, key, scale).to(query.dtype), value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """With weights P and upstream G: dV = P' G, dS = P (G V' - rowsum(P G V')), dQ = scale dS K."""
        (upstream,) = gradients
        query, key, value = ctx.saved_tensors
        weights = _weights(query, key, ctx.scale)
        by_weight = torch.bmm(upstream, value.transpose(1, 2)).to(weights.dtype)
        by_score = weights * (by_weight - (weights * by_weight).sum(-1, keepdim=True))
        by_score = (by_score * ctx.scale).to(query.dtype)
        by_value = torch.bmm(weights.to(query.dtype).transpose(1, 2), upstream)
        return torch.bmm(by_score, key), torch.bmm(by_score.transpose(1, 2), query), by_value, None


def _weights(query: Tensor, key: Tensor, scale: float) -> Tensor:
    scores = torch.bmm(query, key.transpose(1, 2))
    scores = scores.float() if scores.dtype == torch.bfloat16 else scores
    return scores.mul_(scale).softmax(-1)
