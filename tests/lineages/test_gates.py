"""Quality gates, against models whose answers are known."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch

from reasoning_embedding.config.lineage import Gates, SftStage
from reasoning_embedding.data.miniature_world import SUMS
from reasoning_embedding.errors import InputError, QualityGateError
from reasoning_embedding.lineages.gates import (
    GateReport,
    check_gates,
    complete,
    encode_fixed,
    measure,
    require_learnable,
)
from reasoning_embedding.lineages.tokenizer import train_bpe, world_tokenizer

TOKENIZER = world_tokenizer()


class Oracle(torch.nn.Module):
    """Adds perfectly, but gives its first digit only a share of the probability."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.prompts = {
            tuple(TOKENIZER(s.prompt)["input_ids"]): TOKENIZER(s.answer)["input_ids"] for s in SUMS
        }

    def forward(self, input_ids: torch.Tensor, past_key_values: torch.Tensor | None = None, **_: object):
        seen = input_ids if past_key_values is None else torch.cat([past_key_values, input_ids], 1)
        probability = torch.full((len(seen), 1, len(TOKENIZER)), 1e-9)
        for i, row in enumerate(seen.tolist()):
            position = len(row) - 5
            right = self.prompts[tuple(row[:5])][position]
            share = self.share if position == 0 else 1.0
            probability[i, 0, right] = share
            probability[i, 0, TOKENIZER.eos_token_id] += 1 - share
        return SimpleNamespace(logits=probability.log(), past_key_values=seen)


def test_measurement_finds_the_known_accuracy() -> None:
    report = measure(Oracle(0.6), TOKENIZER)
    # 2048 draws of probability 0.6: four standard deviations are 0.043.
    assert report.sampled_accuracy == pytest.approx(0.6, abs=0.044)
    assert report.greedy_accuracy == 1.0
    assert report.pass_at_8 == pytest.approx(1 - 0.4**8, abs=0.02)


def test_greedy_and_sampled_differ_where_the_mode_is_wrong() -> None:
    report = measure(Oracle(0.3), TOKENIZER)
    assert report.greedy_accuracy == 0.0
    assert report.sampled_accuracy == pytest.approx(0.3, abs=0.041)
    assert report.pass_at_8 == pytest.approx(1 - 0.7**8, abs=0.06)


def test_measurement_repeats() -> None:
    assert measure(Oracle(0.5), TOKENIZER, seed=3) == measure(Oracle(0.5), TOKENIZER, seed=3)


def test_cached_completion_equals_one_without_cache() -> None:
    from transformers import AutoModelForCausalLM, Qwen3Config

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=126, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=8, intermediate_size=32,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = encode_fixed([s.prompt for s in SUMS[:6]], TOKENIZER)
    expected = ids
    for _ in range(4):
        with torch.no_grad():
            nearest = model(input_ids=expected).logits[:, -1].argmax(-1, keepdim=True)
        expected = torch.cat([expected, nearest], 1)
    assert torch.equal(complete(model, ids, 4), expected[:, 5:])


def test_a_missed_gate_says_value_threshold_stage_and_remedy() -> None:
    section = SftStage(
        kind="sft", name="teach", parent="base", learning_rate=1e-3, steps=1, batch_size=1,
        gates=Gates(greedy_accuracy=0.95, sampled_accuracy=0.1),
    )  # fmt: skip
    with pytest.raises(QualityGateError) as error:
        check_gates(section, asdict(GateReport("worked", 256, 0.2, 0.41, 0.9)))
    message = str(error.value)
    assert "greedy_accuracy is 0.410, the gate asks for 0.950" in message
    assert "stage teach" in message
    assert "more steps" in message
    assert "sampled_accuracy" not in message
    check_gates(section, asdict(GateReport("worked", 256, 0.2, 0.95, 0.9)))


def test_rlvr_refuses_a_parent_that_solves_too_little() -> None:
    with pytest.raises(QualityGateError, match=r"pass_at_8 of its parent 'base' is 0\.490"):
        require_learnable(GateReport("direct", 256, 0.1, 0.1, 0.49), "rlvr", "base")
    require_learnable(GateReport("direct", 256, 0.1, 0.1, 0.5), "rlvr", "base")


def test_a_tokenizer_without_one_token_a_digit_is_refused() -> None:
    tokenizer = train_bpe(iter([s.prompt for s in SUMS[100:200]]), 300)
    with pytest.raises(InputError, match="tokens"):
        encode_fixed([s.prompt for s in SUMS], tokenizer)
