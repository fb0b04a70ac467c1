"""Attention in bfloat16 on a CPU against float64, and beside torch's fused kernel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from reasoning_embedding.backbones import attention, make_pack
from reasoning_embedding.backbones.cpu.half_attention import BatchedAttention, attend_in_half
from tests.models import gradients, relative, tiny_embedder


def test_the_gradient_of_batched_attention_is_its_gradient() -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(2, rows, 3, dtype=torch.float64, requires_grad=True) for rows in (4, 5, 5)]
    assert torch.autograd.gradcheck(BatchedAttention.apply, (*tensors, 0.7))
    query, key, value = tensors
    expected = F.scaled_dot_product_attention(query, key, value, scale=0.7)
    torch.testing.assert_close(BatchedAttention.apply(*tensors, 0.7), expected)


def _gradients(attend: object, tensors: list[Tensor], upstream: Tensor) -> list[Tensor]:
    out = attend(*tensors, scale=0.125)  # type: ignore[operator]
    return [out, *torch.autograd.grad(out, tensors, upstream.to(out.dtype))]


@pytest.mark.parametrize("length", [2, 30, 128, 129, 200])
def test_it_is_as_near_to_float64_as_the_fused_kernel(length: int) -> None:
    torch.manual_seed(length)
    tensors = [
        (2 * torch.randn(3, 2, rows, 64)).bfloat16().requires_grad_() for rows in (2 * length, length, length)
    ]
    upstream = torch.randn(3, 2, 2 * length, 64).bfloat16()
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    wanted = _gradients(F.scaled_dot_product_attention, exact, upstream)
    fused = _gradients(F.scaled_dot_product_attention, tensors, upstream)
    found = _gradients(attend_in_half, tensors, upstream)
    for ours, theirs, right in zip(found, fused, wanted, strict=True):
        assert ours.dtype == torch.bfloat16
        assert relative(ours.double(), right) <= 1.5 * relative(theirs.double(), right) + 1e-2


def test_a_step_under_autocast_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def watch(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        lengths.append(key.shape[2])
        return attend_in_half(query, key, value, scale)

    monkeypatch.setattr(attention, "attend_in_half", watch)
    rng = np.random.default_rng(0)
    pack = make_pack([rng.integers(3, 90, n) for n in (150, 20, 20, 7)], [0] * 4)
    found = []
    for autocast in (False, True):
        embedder = tiny_embedder().train()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            (embedder(pack) ** 3).sum().backward()
        found.append(gradients(embedder))
        assert lengths == ([150, 20, 7] * 2 if autocast else [])
    assert 1e-6 < relative(found[1], found[0]) < 0.05
