"""Linear layers with reordered weights: the same states, only where they may be, and gone afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reasoning_embedding.backbones import Embedder, attention, load_decoder, make_pack
from reasoning_embedding.backbones.cpu import prepacked as module
from reasoning_embedding.backbones.cpu.native import native_kernels
from reasoning_embedding.backbones.cpu.prepacked import prepacked
from tests.models import tiny_decoder

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")


def _changed(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if "forward" in vars(module)}


def _states(model: nn.Module) -> Tensor:
    pack = make_pack([torch.arange(3, 3 + length).numpy() for length in (40, 40, 7)], [0, 0, 0])
    return model(**pack.model_inputs()).last_hidden_state[0]


@pytest.mark.parametrize("family", ["qwen3", "llama", "gemma", "gpt_neox", "phi3", "granite"])
@torch.no_grad()
def test_states_are_those_of_the_stock_layers(family: str) -> None:
    model = tiny_decoder(family)
    expected = _states(model)
    with prepacked(model, tokens=64):
        assert _changed(model)
        torch.testing.assert_close(_states(model), expected, rtol=0, atol=3e-6)
    assert not _changed(model)
    assert torch.equal(_states(model), expected)


@pytest.mark.parametrize("software", [False, True])
@torch.no_grad()
def test_bfloat16_agrees_to_its_rounding(monkeypatch: pytest.MonkeyPatch, software: bool) -> None:
    if software:
        monkeypatch.setattr(module, "multiplies_bfloat16", lambda: False)
    model = tiny_decoder()
    exact = _states(model)
    stock = (_states(model.bfloat16()).float() - exact).abs().mean()
    with prepacked(model, tokens=64):
        assert "layers.0.mlp" in _changed(model)
        found = _states(model)
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).abs().mean() < 1.5 * stock


@torch.no_grad()
def test_a_swiglu_block_is_one_forward_and_others_are_layer_by_layer() -> None:
    swiglu, gelu = tiny_decoder("granite"), tiny_decoder("gemma")
    with prepacked(swiglu, tokens=64), prepacked(gelu, tokens=64):
        assert {"layers.0.mlp", "layers.1.mlp", "layers.0.self_attn.q_proj"} <= _changed(swiglu)
        assert "layers.0.mlp" not in _changed(gelu)
        assert "layers.0.mlp.up_proj" in _changed(gelu)


@torch.no_grad()
def test_a_block_that_computes_something_else_is_not_taken_for_swiglu() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(8, 8) for _ in range(3))
            self.act_fn = nn.SiLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.down_proj(self.act_fn(self.gate_proj(x)) + self.up_proj(x))

    block, x = Sum(), torch.randn(5, 8)
    expected = block(x)
    with prepacked(block, tokens=5):
        assert _changed(block) == {"gate_proj", "up_proj", "down_proj"}
        torch.testing.assert_close(block(x), expected)


def test_with_gradients_and_in_other_dtypes_nothing_changes() -> None:
    model = tiny_decoder()
    with prepacked(model, tokens=64):
        assert not _changed(model)
    with torch.no_grad(), prepacked(model.double(), tokens=64):
        assert not _changed(model)


@torch.no_grad()
def test_an_error_inside_leaves_the_stock_layers_behind() -> None:
    model = tiny_decoder()
    with pytest.raises(RuntimeError, match="inside"), prepacked(model, tokens=64):
        raise RuntimeError("inside")
    assert not _changed(model)


def test_encoding_packs_and_the_next_call_sees_changed_weights(
    tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Embedder(*load_decoder(str(tiny_backbone), bidirectional=True))
    seen: list[set[str]] = []
    forward = embedder.model.forward

    def recorded(**inputs: Any) -> Any:
        seen.append(_changed(embedder.model))
        return forward(**inputs)

    monkeypatch.setattr(embedder.model, "forward", recorded)
    first = embedder.encode(["red cat"])
    assert ("layers.0.mlp" if native_kernels(torch.float32) is None else "layers.0") in seen[0]
    with torch.no_grad():
        embedder.model.layers[0].mlp.up_proj.weight.mul_(-1)
    assert abs(embedder.encode(["red cat"]) - first).max() > 1e-3


def test_attention_of_encoding_in_bfloat16_equals_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "computes_in_half", lambda query: False)
    monkeypatch.setattr(attention, "multiplies_bfloat16", lambda: True)
    query = torch.randn(20, 4, 16, dtype=torch.bfloat16)
    key, value = torch.randn(2, 20, 2, 16, dtype=torch.bfloat16)
    boundaries = torch.tensor([0, 8, 16, 20])
    options: dict[str, Any] = {"dropout": 0.0, "scale": 0.25, "causal": False, "window": None}
    fused = attention._segments(query, key, value, boundaries, 8, **options)
    with torch.inference_mode():
        found = attention._segments(query, key, value, boundaries, 8, **options)
        leaking = attention._segments(query, key, value, boundaries[[0, -1]], 20, **options)
    assert not torch.equal(found, fused), "the same kernel ran twice"
    torch.testing.assert_close(found, fused, rtol=0, atol=0.03)
    assert (leaking - found).abs().max() > 0.1
