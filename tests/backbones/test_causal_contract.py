"""The attention contract of causal readouts: no token sees a later one, in packs, padded or alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from reasoning_embedding.backbones import check_attention, is_causal
from reasoning_embedding.backbones.layers import set_causal
from reasoning_embedding.errors import ContractError
from tests.models import tiny_decoder

FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "llama": {},
    "gpt_neox": {"num_key_value_heads": 2},
    "gemma3_text": {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_causal_model_keeps_it_and_its_bidirectional_twin_fails(family: str) -> None:
    model = tiny_decoder(family, causal=True, **FAMILIES[family])
    found = check_attention(model, where=family, causal=True)
    assert (found.causal_reach, found.leak) == (0, 0)
    assert found.least_reach > 1e-4
    with pytest.raises(ContractError, match="not bidirectional"):
        check_attention(model, where=family)
    twin = tiny_decoder(family, **FAMILIES[family])
    check_attention(twin, where=family)
    with pytest.raises(ContractError, match="attention is not causal in layer 0, 1"):
        check_attention(twin, where=family, causal=True)


def test_one_layer_that_looks_ahead_is_found() -> None:
    model = tiny_decoder(causal=True)
    layer = model.layers[1].self_attn
    layer.config = copy.copy(layer.config)
    layer.config.is_causal = False
    with pytest.raises(ContractError, match=r"attention is not causal in layer 1\n"):
        check_attention(model, where="mixed", causal=True)


def test_a_layer_that_sees_nothing_at_all_is_no_causal_model() -> None:
    """The control: a test that could see no movement would pass everything."""
    model = tiny_decoder(causal=True)
    model.layers[0].self_attn.o_proj.weight.data.zero_()
    with pytest.raises(ContractError, match="sees nothing of the token before in layer 0"):
        check_attention(model, where="blind", causal=True)


def test_gemmas_own_switch_is_a_direction() -> None:
    """EmbeddingGemma says ``use_bidirectional_attention``; its windows are those of its own rule."""
    settings = {**FAMILIES["gemma3_text"], "sliding_window": 6, "use_bidirectional_attention": True}
    model = tiny_decoder("gemma3_text", causal=True, **settings)
    model.config.__dict__.pop("is_causal", None)
    assert not is_causal(model.config)
    check_attention(model, where="gemma")
    set_causal(model.config, False)
    assert "is_causal" not in vars(model.config)  # it is bidirectional by itself already
    set_causal(model.config, True)
    assert is_causal(model.config)
    assert model.config.sliding_window == 6


def test_a_later_token_moves_no_earlier_one_padded_alone_or_packed() -> None:
    """By states alone, without the hooks of the contract."""
    from reasoning_embedding.backbones import make_pack

    model = tiny_decoder(causal=True)
    ids = torch.arange(3, 12)
    other = ids.clone()
    other[-1] = 40
    with torch.no_grad():
        packed = [
            model(**make_pack([one.numpy(), ids.numpy()], [0, 0]).model_inputs()).last_hidden_state[0, :9]
            for one in (ids, other)
        ]
        model.set_attn_implementation("sdpa")
        alone = [model(input_ids=one[None]).last_hidden_state[0] for one in (ids, other)]
        mask = torch.ones(2, 9, dtype=torch.long)
        mask[1, 4:] = 0
        padded = [
            model(input_ids=torch.stack([one, ids]), attention_mask=mask).last_hidden_state[0]
            for one in (ids, other)
        ]
    for before, after in (packed, alone, padded):
        assert torch.equal(before[:-1], after[:-1])
        assert (before[-1] - after[-1]).abs().max() > 1e-3
    torch.testing.assert_close(packed[0], alone[0])
    torch.testing.assert_close(packed[0], padded[0])
