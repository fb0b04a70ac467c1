"""Linear layers with reordered weights: the same states, only where they may be, and gone afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reasoning_embedding.backbones import Embedder, load_decoder, make_pack
from reasoning_embedding.backbones.cpu import encoding as module
from reasoning_embedding.backbones.cpu import fast_encoding
from reasoning_embedding.backbones.cpu.elementwise_native import native_kernels
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
    with fast_encoding(model, tokens=64):
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
    with fast_encoding(model, tokens=64):
        assert "layers.0.mlp" in _changed(model)
        found = _states(model)
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).abs().mean() < 1.5 * stock


@torch.no_grad()
def test_a_swiglu_block_is_one_forward_and_others_are_layer_by_layer() -> None:
    swiglu, gelu = tiny_decoder("granite"), tiny_decoder("gemma")
    with fast_encoding(swiglu, tokens=64), fast_encoding(gelu, tokens=64):
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
    with fast_encoding(block, tokens=5):
        assert _changed(block) == {"gate_proj", "up_proj", "down_proj"}
        torch.testing.assert_close(block(x), expected)


def test_with_gradients_and_in_other_dtypes_nothing_changes() -> None:
    model = tiny_decoder()
    with fast_encoding(model, tokens=64):
        assert not _changed(model)
    with torch.no_grad(), fast_encoding(model.double(), tokens=64):
        assert not _changed(model)


@torch.no_grad()
def test_an_error_inside_leaves_the_stock_layers_behind() -> None:
    model = tiny_decoder()
    with pytest.raises(RuntimeError, match="inside"), fast_encoding(model, tokens=64):
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
