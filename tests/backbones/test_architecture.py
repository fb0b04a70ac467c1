"""Decoder configurations from numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from reasoning_embedding.backbones.architecture import build_config
from reasoning_embedding.config.backbone import Architecture
from reasoning_embedding.errors import InputError
from reasoning_embedding.lineages.tokenizer import world_tokenizer

TOKENIZER = world_tokenizer()
FAMILIES = [
    "qwen2", "qwen3", "llama", "mistral", "phi3", "olmo2", "olmo3", "gpt_neox", "gemma", "gemma3_text",
    "smollm3", "granite",
]  # fmt: skip


def tiny(model_type: str = "qwen3", **changes: object) -> Architecture:
    fields = {
        "model_type": model_type, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 48, "max_position_embeddings": 64, "rope_theta": 777.0,
    }  # fmt: skip
    return Architecture.model_validate(fields | changes)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_numbers_reach_the_model(model_type: str) -> None:
    config = build_config(tiny(model_type), 128, TOKENIZER)
    model = AutoModelForCausalLM.from_config(config)
    assert model.get_input_embeddings().weight.shape == (128, 32)
    assert (config.num_hidden_layers, config.pad_token_id, config.eos_token_id) == (2, 0, 1)
    # The base decides the angles themselves: 777^(-2/d) is the second frequency.
    buffers = dict(model.base_model.rotary_emb.named_buffers())
    frequencies = [buffer for name, buffer in buffers.items() if name.endswith("inv_freq")]
    assert frequencies
    for values in frequencies:
        torch.testing.assert_close(values[1], torch.tensor(777.0 ** (-1 / len(values))))
    assert torch.isfinite(model(input_ids=torch.tensor([[5, 6, 7]])).logits).all()


def test_the_miniature_has_the_parameters_of_the_method() -> None:
    architecture = Architecture(
        hidden_size=96, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=24,
        intermediate_size=256,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(build_config(architecture, 126, TOKENIZER))
    assert model.num_parameters() == 418_656


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen33"}, "no architecture 'qwen33'"),
        ({"num_attention_heads": 3}, "no multiple of num_attention_heads"),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "no multiple of num_key_value_heads"),
        ({"extra": {"slidding_window": 4}}, "did you mean 'sliding_window'"),
        ({"model_type": "gpt_neox", "num_key_value_heads": 1}, "one key-value head for each"),
    ],
)
def test_impossible_numbers_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        build_config(tiny(**changes), 128, TOKENIZER)
    assert message in str(error.value)


def test_a_vocabulary_smaller_than_the_tokenizer_is_refused() -> None:
    with pytest.raises(InputError, match="126 tokens"):
        build_config(tiny("qwen3"), 100, TOKENIZER)
