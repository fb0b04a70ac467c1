"""The attention contract: who keeps it, who is refused, and that it can fail."""

from __future__ import annotations

import pytest
import torch

from reasoning_embedding.backbones import attention, check_attention, make_pack
from reasoning_embedding.errors import ContractError
from tests.models import SIZES, tiny_decoder

FAMILIES = (
    "qwen3", "qwen2", "llama", "mistral", "phi3", "olmo2", "olmo3",
    "gpt_neox", "gemma", "gemma3_text", "smollm3", "granite",
)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_supported_families_keep_the_contract(family: str) -> None:
    found = check_attention(tiny_decoder(family), where=family)
    assert found.least_reach > 1e-3
    assert found.causal_reach == 0
    assert found.leak == 0
    assert found.padding < 1e-5


def test_a_causal_model_is_refused_by_name() -> None:
    with pytest.raises(ContractError, match=r"my-model: .*not bidirectional in layer 0, 1"):
        check_attention(tiny_decoder(causal=True), where="my-model")


@pytest.mark.parametrize("family", ["stablelm", "nemotron", "gemma2"])
def test_families_that_do_not_honour_the_flag_are_refused(family: str) -> None:
    with pytest.raises(ContractError) as caught:
        check_attention(tiny_decoder(family), where=family)
    assert str(caught.value).startswith(f"{family}: ")
    assert caught.value.exit_code == 2


def test_hybrid_layers_are_refused_by_name() -> None:
    model = tiny_decoder("lfm2", layer_types=["conv", "full_attention"])
    with pytest.raises(ContractError, match="conv layers stay causal"):
        check_attention(model, where="hybrid")


def test_one_causal_layer_among_bidirectional_ones_is_found() -> None:
    model = tiny_decoder()
    model.layers[1].self_attn.config = type(model.config)(**{**SIZES, "num_hidden_layers": 2})
    model.layers[1].self_attn.config._attn_implementation = attention.NAME
    with pytest.raises(ContractError, match="layer 1"):
        check_attention(model, where="mixed")


def test_attention_across_texts_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = attention._segments

    def leaky(query, key, value, boundaries, longest, **options):  # type: ignore[no-untyped-def]
        return whole(query, key, value, boundaries[[0, -1]], longest, **options)

    monkeypatch.setattr(attention, "_segments", leaky)
    with pytest.raises(ContractError, match="see each other"):
        check_attention(tiny_decoder(), where="leaky")


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 3])
def test_packed_equals_padded_with_windows(causal: bool, window: int | None) -> None:
    changes = {} if window is None else {"sliding_window": window}
    model = tiny_decoder("mistral", causal=causal, **changes).double()
    texts = [torch.randint(3, 100, (n,)).numpy() for n in (9, 4, 9)]
    pack = make_pack(texts, [0, 0, 0])
    packed = model(**pack.model_inputs()).last_hidden_state[0]
    model.set_attn_implementation("eager")
    start = 0
    for text in texts:
        alone = model(input_ids=torch.from_numpy(text)[None].long(), use_cache=False).last_hidden_state[0]
        torch.testing.assert_close(packed[start : start + len(text)], alone, rtol=0, atol=2e-6)
        start += len(text)


def test_packed_attention_refuses_padded_batches() -> None:
    ids = torch.ones(2, 4, dtype=torch.long)
    with pytest.raises(ContractError, match="without packed input"):
        tiny_decoder()(input_ids=ids, attention_mask=torch.ones_like(ids))
