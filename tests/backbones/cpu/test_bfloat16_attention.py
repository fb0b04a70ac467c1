"""Attention in bfloat16 on a CPU against float64, and beside torch's fused kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from reasoning_embedding.backbones import make_pack
from reasoning_embedding.backbones.cpu import bfloat16_attention
from reasoning_embedding.backbones.cpu.bfloat16_attention import BatchedAttention, attend
from reasoning_embedding.backbones.precision import multiplies_bfloat16
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
    found = _gradients(attend, tensors, upstream)
    for ours, theirs, right in zip(found, fused, wanted, strict=True):
        assert ours.dtype == torch.bfloat16
        assert relative(ours.double(), right) <= 1.5 * relative(theirs.double(), right) + 1e-2


def test_short_texts_of_a_step_under_autocast_leave_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, torch.dtype]] = []
    kernel = F.scaled_dot_product_attention

    def watch(query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Tensor:
        asked.append((key.shape[2], key.dtype))
        return kernel(query, key, *rest, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watch)
    rng = np.random.default_rng(0)
    pack = make_pack([rng.integers(3, 90, n) for n in (150, 20, 20, 7)], [0] * 4)
    found = []
    for autocast in (False, True):
        asked.clear()
        embedder = tiny_embedder().train()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            (embedder(pack) ** 3).sum().backward()
        found.append(gradients(embedder))
        lengths = (150,) if autocast and multiplies_bfloat16() else (150, 20, 7)
        assert asked == [(length, torch.float32) for length in lengths] * 2
    assert 1e-6 < relative(found[1], found[0]) < 0.05


def test_attention_of_encoding_equals_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bfloat16_attention, "multiplies_bfloat16", lambda: True)
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 4, 20, 16, dtype=torch.bfloat16).unbind()
    fused = F.scaled_dot_product_attention(query, key, value, scale=0.25)
    with torch.inference_mode():
        found = attend(query, key, value, 0.25)
        cut = attend(query, key[:, :, :8], value[:, :, :8], 0.25)
    assert found is not None
    assert cut is not None
    assert not torch.equal(found, fused), "the same kernel ran twice"
    torch.testing.assert_close(found, fused, rtol=0, atol=0.03)
    assert (cut - fused).abs().max() > 0.1, "the control: other keys"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_dtypes_are_left_to_torch(dtype: torch.dtype) -> None:
    assert attend(*torch.randn(3, 1, 2, 4, 8, dtype=dtype).unbind(), 1.0) is None
