"""Layers that run as one function each: equal to stock ones, and only where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder, add_lora, fuse_layers, make_pack, stock_model
from reasoning_embedding.backbones.cpu import block_attention as attention
from reasoning_embedding.backbones.cpu import fused_layers as layers
from reasoning_embedding.backbones.cpu.decoder_block import DecoderBlock
from reasoning_embedding.backbones.cpu.elementwise import Eager
from reasoning_embedding.backbones.cpu.elementwise_native import native_kernels
from reasoning_embedding.backbones.cpu.fused_layers import encoding_layers
from reasoning_embedding.backbones.cpu.layout import Layout
from reasoning_embedding.distributed import World
from reasoning_embedding.losses import build_loss
from reasoning_embedding.training import contrastive_step
from reasoning_embedding.training.recompute import recompute_activations
from tests.factories import random_batch
from tests.models import exact_norms, gradients, relative, tiny_decoder, tiny_embedder
from tests.padded_oracle import TEMPERATURE, padded_loss

LOSS = build_loss(config.InfoNCE(temperature=TEMPERATURE, mask_same_text=False))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """Compute dtypes of the layers that ran as one function, and of no others."""
    seen: list[torch.dtype] = []
    apply = DecoderBlock.apply

    def watch(states: torch.Tensor, call: Any, *parameters: Any) -> Any:
        seen.append(call.compute)
        return apply(states, call, *parameters)

    monkeypatch.setattr(DecoderBlock, "apply", watch)
    return seen


@pytest.fixture
def compiled() -> None:
    if native_kernels(torch.float32) is None or native_kernels(torch.bfloat16) is None:
        pytest.skip("no C++ compiler here")


def _embed(embedder: Embedder, autocast: bool = False) -> torch.Tensor:
    """Gradient of a function of two packs' embeddings; texts of equal and of unequal lengths."""
    embedder.zero_grad()
    rng = np.random.default_rng(0)
    for lengths in ((30, 12, 12, 5), (9, 9)):
        pack = make_pack([rng.integers(3, 90, n) for n in lengths], [0] * len(lengths))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = embedder(pack)
        (out**3).sum().backward()
    return gradients(embedder)


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize("store_tokens", [None, 50, 0])
def test_a_step_equals_one_padded_forward(family: str, store_tokens: int | None, ran: list[object]) -> None:
    with exact_norms():
        embedder, batch = tiny_embedder(family, double=True), random_batch()
        expected = padded_loss(embedder, batch)
        expected.backward()
        wanted = gradients(embedder)
        embedder.zero_grad()
        assert fuse_layers(embedder.model, torch.float64) == 2
        output = contrastive_step(embedder, batch, LOSS, World(), pack_tokens=40, store_tokens=store_tokens)
        assert set(ran) == {torch.float64}
        assert output.loss == pytest.approx(expected.item(), rel=1e-12)
        assert relative(gradients(embedder), wanted) < 1e-12
        embedder.zero_grad()
        padded_loss(embedder, batch, causal=True).backward()
        assert relative(gradients(embedder), wanted) > 1e-2, "the control: causal attention differs"


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "mistral"])
def test_compiled_layers_equal_stock_ones(family: str, ran: list[object]) -> None:
    stock = tiny_embedder(family, sliding_window=None)
    fused = tiny_embedder(family, sliding_window=None)
    for embedder in (stock, fused):
        for name, parameter in embedder.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.uniform_(parameter, generator=torch.Generator().manual_seed(1))
    assert fuse_layers(fused.model) == 2
    exact = _embed(stock)
    assert relative(_embed(fused), exact) < 1e-5
    assert ran == [torch.float32] * 4
    rounded = _embed(stock, autocast=True)
    assert relative(_embed(fused, autocast=True), exact) < 1.2 * relative(rounded, exact)
    assert ran[4:] == [torch.bfloat16] * 4


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("kind", [True, "selective"])
def test_checkpointed_layers_give_the_same_bits(kind: Literal[True, "selective"], ran: list[object]) -> None:
    found = []
    for recompute in (False, True):
        embedder = tiny_embedder().train()
        if recompute:
            recompute_activations(embedder.model, kind)
        fuse_layers(embedder.model)
        found.append(_embed(embedder))
    assert torch.equal(*found)
    assert len(ran) == 4 + 8


@pytest.mark.usefixtures("compiled")
def test_a_changed_weight_is_seen(ran: list[object]) -> None:
    fused = tiny_embedder()
    fuse_layers(fused.model)
    before = _embed(fused, autocast=True)
    torch.optim.AdamW(fused.parameters(), lr=1e-2, fused=True).step()
    fresh = tiny_embedder()
    fresh.load_state_dict(fused.state_dict())
    fuse_layers(fresh.model)
    after = _embed(fused, autocast=True)
    assert torch.equal(after, _embed(fresh, autocast=True))
    assert relative(after, before) > 1e-2
    fused.load_state_dict(tiny_embedder().state_dict())
    assert torch.equal(_embed(fused, autocast=True), before)


def _adapters(embedder: Embedder) -> None:
    add_lora(embedder, config.Lora(rank=2))


def _hooked(embedder: Embedder) -> None:
    embedder.model.layers[0].mlp.register_forward_hook(lambda *_: None)
    embedder.model.layers[1].self_attn.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    ("family", "changes", "change"),
    [
        ("gpt_neox", {}, None),
        ("gemma", {}, None),
        ("qwen3", {"attention_dropout": 0.5}, None),
        ("qwen3", {"causal": True}, None),
        ("qwen3", {"hidden_act": "gelu"}, None),
        ("llama", {"mlp_bias": True}, None),
        ("mistral", {"sliding_window": 4}, None),
        ("qwen3", {}, _adapters),
        ("qwen3", {}, _hooked),
    ],
)
def test_what_it_does_not_compute_goes_through_stock_layers(
    family: str, changes: dict[str, Any], change: Callable[[Embedder], None] | None, ran: list[object]
) -> None:
    stock, fused = tiny_embedder(family, **changes).train(), tiny_embedder(family, **changes).train()
    for embedder in (stock, fused):
        torch.manual_seed(0)
        if change is not None:
            change(embedder)
    fuse_layers(stock_model(fused))
    found = []
    for embedder in (stock, fused):
        torch.manual_seed(1)
        found.append(_embed(embedder))
    assert torch.equal(*found)
    assert ran == []


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the weights of each layer that ran forward alone were in blocks."""
    seen: list[bool] = []
    real = layers.decode

    def watch(states: torch.Tensor, call: Any, weights: Any) -> Any:
        seen.append(weights.qkv.is_mkldnn)
        return real(states, call, weights)

    monkeypatch.setattr(layers, "decode", watch)
    return seen


def _states(embedder: Embedder) -> torch.Tensor:
    rng = np.random.default_rng(0)
    pack = make_pack([rng.integers(3, 90, n) for n in (30, 12, 12, 5)], [0] * 4)
    return embedder.model(**pack.model_inputs()).last_hidden_state[0]


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "mistral"])
def test_layers_encode_what_stock_ones_do(family: str, decoded: list[bool]) -> None:
    embedder = tiny_embedder(family, sliding_window=None)
    with torch.no_grad():
        expected = _states(embedder)
        with encoding_layers(embedder.model, tokens=59) as whole:
            assert len(whole) == 2
            with torch.autocast("cpu", torch.bfloat16):  # weights are float32 already
                torch.testing.assert_close(_states(embedder), expected, rtol=0, atol=3e-6)
        assert decoded == [True, True]
        assert torch.equal(_states(embedder), expected)
        with encoding_layers(embedder.model, tokens=59):
            embedder.model.layers[0].self_attn.q_proj.register_forward_hook(lambda *_: None)
            _states(embedder)
        assert len(decoded) == 3, "a layer with a hook inside goes through its stock forward"


@pytest.mark.usefixtures("compiled")
def test_layers_that_train_encode_with_fresh_weights_and_train_on(
    ran: list[object], decoded: list[bool]
) -> None:
    embedder = tiny_embedder()
    fuse_layers(embedder.model)
    before = _embed(embedder)
    with torch.no_grad():
        embedder.model.layers[1].mlp.up_proj.weight.mul_(-1)
        with encoding_layers(embedder.model, tokens=59):
            found = _states(embedder)
        fresh = tiny_embedder()
        fresh.load_state_dict(embedder.state_dict())
        torch.testing.assert_close(found, _states(fresh), rtol=0, atol=3e-6)
    assert len(decoded) == 2
    ran.clear()
    assert relative(_embed(embedder), before) > 1e-2
    assert len(ran) == 4


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    ("family", "changes", "dtype"),
    [
        ("gemma", {}, torch.float32),
        ("qwen3", {"causal": True}, torch.float32),
        ("qwen3", {}, torch.bfloat16),
        ("mistral", {"sliding_window": 4}, torch.float32),
    ],
)
def test_layers_that_compute_otherwise_encode_as_they_are(
    family: str, changes: dict[str, Any], dtype: torch.dtype
) -> None:
    model = tiny_decoder(family, **changes).to(dtype)
    with torch.no_grad(), encoding_layers(model, tokens=59) as whole:
        assert whole == []


def test_layers_whose_weights_are_elsewhere_encode_as_they_are() -> None:
    model = tiny_decoder()
    down = model.layers[0].mlp.down_proj
    down.weight.data = torch.empty(0)  # as under ZeRO-3 between forwards
    with torch.no_grad(), encoding_layers(model, tokens=59) as whole:
        assert down not in {part for layer in whole for part in layer.modules()}
        assert "forward" not in vars(model.layers[0])


def test_a_forward_that_others_put_there_stays() -> None:
    model = tiny_decoder()
    own = model.layers[0].forward
    model.layers[0].forward = lambda *args, **kwargs: own(*args, **kwargs)  # as accelerate's hooks do
    placed = model.layers[0].forward
    with torch.no_grad(), encoding_layers(model, tokens=59) as whole:
        assert model.layers[0] not in whole
    fuse_layers(model)
    assert model.layers[0].forward is placed


def test_nothing_encodes_so_with_gradients_or_without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_decoder()
    with encoding_layers(model, tokens=59) as whole:
        assert whole == []
    monkeypatch.setattr(layers, "kernels_for", lambda dtype: None)
    with torch.no_grad(), encoding_layers(model, tokens=59) as whole:
        assert whole == []
    assert "forward" not in vars(model.layers[0])


@pytest.mark.usefixtures("compiled")
def test_long_texts_and_machines_without_compiler_take_stock_layers(
    monkeypatch: pytest.MonkeyPatch, ran: list[object]
) -> None:
    fused = tiny_embedder()
    fuse_layers(fused.model)
    monkeypatch.setattr(layers, "LONGEST", 11)
    _embed(fused)
    assert len(ran) == 2, "the pack of texts of 9 tokens alone"
    monkeypatch.setattr(layers, "kernels_for", lambda dtype: None)
    assert fuse_layers(tiny_embedder().model) == 0
    monkeypatch.setattr(
        layers, "kernels_for", lambda dtype: pytest.fail("built for layers that cannot use them")
    )
    assert fuse_layers(tiny_embedder("gemma").model) == 0
    monkeypatch.setattr(layers, "kernels_for", lambda dtype: None)
    assert torch.equal(_embed(fused), _embed(tiny_embedder()))
    assert len(ran) == 2


def test_attention_in_blocks_is_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layout, kernels = Layout.of(torch.tensor([0, 5, 8, 11, 11])), Eager(torch.float64)
    query = torch.randn(11, 4 * 3, dtype=torch.float64, requires_grad=True)
    key, value = torch.randn(2, 11, 2 * 3, dtype=torch.float64).requires_grad_().unbind()
    upstream = torch.randn_like(query)

    def reference() -> torch.Tensor:
        pieces = []
        for start, stop in ((0, 5), (5, 8), (8, 11)):
            q, k, v = (t[start:stop].view(1, -1, stop - start, 3) for t in (query, key, value))
            k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
            pieces.append(torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.7).flatten())
        return torch.cat(pieces).view_as(query)

    wanted = torch.autograd.grad(reference(), (query, key, value), upstream)
    with torch.no_grad():
        for most in (1, 20, 1 << 20):
            monkeypatch.setattr(attention, "_WEIGHTS", most)
            arguments = (kernels, layout, 3, query, key, value, 0.7)
            torch.testing.assert_close(attention.attend(*arguments), reference())
            found = attention.attend_backward(*arguments, upstream)
            for ours, theirs in zip(found, wanted, strict=True):
                torch.testing.assert_close(ours, theirs)


def test_long_texts_attend_by_torchs_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layout = Layout.of(torch.tensor([0, 6, 12, 15]))
    query, key, value = torch.randn(15, 4 * 8), torch.randn(15, 2 * 8), torch.randn(15, 2 * 8)
    wide = attention.attend(
        Eager(torch.float64), layout, 8, query.double(), key.double(), value.double(), 0.7
    )
    longest: list[int] = []
    real = attention.F.scaled_dot_product_attention

    def watch(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: float) -> torch.Tensor:
        longest.append(k.shape[-2])
        return real(q, k, v, **options)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", watch)
    for long, asked in ((7, []), (6, [6])):
        monkeypatch.setattr(attention, "_LONG", long)
        found = attention.attend(Eager(torch.float32), layout, 8, query, key, value, 0.7)
        torch.testing.assert_close(found.double(), wide, rtol=1e-5, atol=1e-5)
        assert longest == asked
