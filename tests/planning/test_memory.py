"""The memory a plan predicts is the memory that a step holds."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.backbones import add_lora, fuse_layers, make_packs, stock_model, use_text_dropout
from reasoning_embedding.backbones.cpu import block_attention as attention
from reasoning_embedding.config import EngineSettings
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.distributed import World
from reasoning_embedding.errors import InputError
from reasoning_embedding.losses import build_loss
from reasoning_embedding.planning import memory as cost_memory
from reasoning_embedding.planning.adapters import adapter_bytes
from reasoning_embedding.planning.memory import (
    RankLoad,
    activation_bytes,
    batch_memory,
    fixed_memory,
    trained_parameters,
)
from reasoning_embedding.planning.shapes import DecoderShape, decoder_shape
from reasoning_embedding.training import Replicated, contrastive_step
from reasoning_embedding.training.activation_memory import LiveBytes
from reasoning_embedding.training.optimizers import build_optimizer
from reasoning_embedding.training.recompute import recompute_activations
from tests.factories import random_batch
from tests.models import tiny_embedder

SIZES: dict[str, int] = {
    "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 32, "intermediate_size": 384, "vocab_size": 300,
}  # fmt: skip
HALF, ADAPTERS = {"precision": "bf16"}, {"rank": 8}
FEW: dict[str, Any] = {"rank": 8, "target_modules": ["q_proj", "v_proj"]}
EVERY: list[dict[str, Any]] = [
    {},
    {"activation_checkpointing": True},
    {"activation_checkpointing": "selective"},
    {"optimizer": {"kind": "muon"}},
    {"lora": ADAPTERS},
    {"lora": ADAPTERS | {"dropout": 0.0}},
    {"lora": FEW},
    {"lora": ADAPTERS, "activation_checkpointing": True},
    {"lora": ADAPTERS, "activation_checkpointing": "selective"},
]


@functools.cache
def _both(
    written: str, *, queries: int = 6, kept: float = 1.0, fused: bool = False
) -> tuple[dict[str, float], float, int]:
    """Predicted parts, their sum without the weights, and the peak of all tensors that two steps make.

    `written` is the recipe in JSON; `kept` is the share of the batch's tokens whose activations are stored.
    """
    recipe = config.Training.model_validate_json(written)
    embedder = tiny_embedder(**SIZES).train()
    compute = torch.bfloat16 if recipe.precision == "bf16" else None
    if recipe.activation_checkpointing:
        recompute_activations(embedder.model, recipe.activation_checkpointing)
    if recipe.lora is not None:
        add_lora(embedder, recipe.lora)
    use_text_dropout(stock_model(embedder))
    if fused and not fuse_layers(stock_model(embedder), compute or torch.float32):
        pytest.skip("no C++ compiler")
    batch = random_batch(queries, queries, longest=60)
    packs = [len(pack.input_ids) for pack, _ in make_packs(batch.texts, batch.prompt_lengths, 300)]
    tokens = sum(packs)
    budget = int(kept * tokens)
    engine = Replicated(embedder, World(), lambda model: build_optimizer(model, recipe), max_norm=1.0)
    with LiveBytes() as live:
        for step in range(2):
            contrastive_step(
                embedder,
                batch,
                build_loss(config.InfoNCE()),
                World(),
                pack_tokens=300,
                store_tokens=None if kept == 1 else budget,
                autocast=compute,
                engine=engine,
                dropout=(0, step),
            )
            engine.update(1e-5)
    shape = decoder_shape(stock_model(embedder).config)
    stored = sum(size for size, whole in zip(packs, np.cumsum(packs), strict=True) if whole <= budget)
    load = RankLoad(tokens, stored, max(packs), len(batch.texts), queries, 2 * queries)
    parts = fixed_memory(shape, recipe, EngineSettings("replicated"), 1)
    parts |= batch_memory(shape, recipe, load, loss=config.InfoNCE(), fused=fused)
    return parts, sum(parts.values()) - parts["weights"], live.peak  # weights were there before


def _check(recipe: dict[str, Any], **how: Any) -> None:
    parts, predicted, measured = _both(json.dumps({"precision": "fp32"} | recipe), **how)
    assert predicted == pytest.approx(measured, rel=0.15)
    if recipe.get("activation_checkpointing") is not True and how.get("kept", 1) > 0:
        assert parts["activations"] > 0.25 * predicted, "what is tested is most of it"


@pytest.mark.parametrize("recipe", EVERY, ids=str)
def test_predicted_memory_is_what_a_step_holds(recipe: dict[str, Any]) -> None:
    """All tensors of two optimizer steps, followed one by one: within 15 %."""
    _check(recipe, queries=10)


@pytest.mark.parametrize("kept", [0.0, 0.5])
@pytest.mark.parametrize("recipe", [{}, {"lora": ADAPTERS}, HALF], ids=str)
def test_what_is_not_stored_is_not_counted(recipe: dict[str, Any], kept: float) -> None:
    _check(recipe, kept=kept, queries=6 if recipe is HALF else 10)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", EVERY, ids=str)
def test_predicted_memory_under_autocast(recipe: dict[str, Any]) -> None:
    _check(recipe | HALF, queries=12)


@pytest.mark.parametrize(
    ("precision", "kept", "queries"),
    [
        ("bf16", 1.0, 12),
        ("fp32", 0.0, 6),
        *(
            pytest.param(precision, kept, 24, marks=pytest.mark.slow)
            for precision in ("fp32", "bf16")
            for kept in (0.0, 0.5, 1.0)
        ),
    ],
)
def test_memory_of_layers_that_run_as_one_function(
    precision: str, kept: float, queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Scores of one head at a time, which for texts as short as these are nothing.
    monkeypatch.setattr(attention, "_WEIGHTS", 0)
    monkeypatch.setattr(cost_memory, "_FUSED_SCORES", 0)
    _check({"precision": precision}, kept=kept, queries=queries, fused=True)


def test_a_plan_that_forgot_what_is_frozen_or_adapted_would_be_seen() -> None:
    """The control: the plan of one recipe is not within 15 % of the memory of another."""

    def both(**options: Any) -> tuple[float, int]:
        return _both(json.dumps({"precision": "fp32"} | options), queries=10)[1:]

    plain, few, every = both(), both(lora=FEW), both(lora=ADAPTERS)
    assert plain[0] > 1.15 * few[1]
    assert few[0] < 0.85 * every[1]


#: One layer: residual stream 10, queries 4 x 2, keys 2 x 2, MLP 30.
SMALL = DecoderShape(1, 10, 30, 4, 2, 2, 100)


@pytest.mark.parametrize(
    ("names", "sides"),
    [
        ("all-linear", (10 + 8) + 2 * (10 + 4) + (8 + 10) + 2 * (10 + 30) + (30 + 10)),
        (["q_proj", "v_proj"], (10 + 8) + (10 + 4)),
        (["self_attn.o_proj", "down_proj"], (8 + 10) + (30 + 10)),
        (["qkv_proj", "gate_up_proj"], (10 + 8 + 2 * 4) + (10 + 2 * 30)),
        (["query_key_value", "dense_4h_to_h"], (10 + 8 + 2 * 4) + (30 + 10)),
    ],
    ids=str,
)
def test_adapters_sit_on_the_modules_that_are_named(names: Any, sides: int) -> None:
    assert trained_parameters(SMALL, config.Lora(rank=3, target_modules=names)) == 3 * sides


def test_a_module_of_unknown_size_is_refused() -> None:
    lora = config.Lora(target_modules=["q_prj"])
    with pytest.raises(InputError, match="did you mean 'q_proj'"):
        trained_parameters(SMALL, lora)


def test_what_adapters_keep() -> None:
    """Inputs: the normed stream (10) for q and v, the attended (8) for o; outputs of rank 3, and the mask's bytes."""

    def kept(names: list[str], *, wide: int, dropout: float = 0.0, selective: bool = False) -> float:
        lora = config.Lora(rank=3, dropout=dropout, target_modules=names)
        return adapter_bytes(SMALL, lora, wide=wide, selective=selective)

    three = ["q_proj", "v_proj", "o_proj"]
    assert kept(three, wide=4) == 4 * (10 + 8) + 4 * 3 * 3, "q and v read one tensor"
    assert kept(three, wide=2) == 2 * (10 + 10 + 8) + 2 * 3 * 3, "autocast makes a copy for each"
    assert kept(three, wide=4, dropout=0.1) == (4 + 1) * (10 + 10 + 8) + 4 * 3 * 3, "so does dropout"
    assert kept(three, wide=2, dropout=0.1) == (2 + 1) * (10 + 10 + 8) + 2 * 3 * 3
    assert kept(three, wide=2, selective=True) == 2 * (8 + 4 + 10) + 2 * 3 * 3, "both factors' outputs"


def test_frozen_layers_keep_less_but_for_their_adapters() -> None:
    def kept(**options: Any) -> float:
        return activation_bytes(SMALL, config.Training(**options)) - 12 * 10

    assert kept(precision="fp32") == 24 * 10 + 20 * 8 + 16 * 4 + 16 * 30
    frozen = 8 * 10 + 12 * 8 + 12 * 4 + 12 * 30
    lora = config.Lora(rank=3, dropout=0.0, target_modules=["down_proj"])
    assert kept(precision="fp32", lora=lora) == frozen + 4 * 30 + 4 * 3
    assert kept(lora=lora) == (8 * 10 + 8 * 8 + 8 * 4 + 6 * 30) + 2 * 30 + 2 * 3
    assert kept(lora=lora, activation_checkpointing=True) == 4 * 10, "inputs of layers alone"


@pytest.mark.parametrize(
    ("options", "copies"),
    [
        ({}, False),
        ({}, True),
        ({"directions": ("query_document", "query_query", "document_query", "document_document")}, True),
        ({"learn_temperature": {}}, True),
    ],
)
def test_the_tile_of_the_loss_is_what_it_holds(options: dict[str, Any], copies: bool) -> None:
    loss, (queries, width) = config.InfoNCE(tile_rows=128, **options), (512, 4)
    rows = np.arange(3 * queries)
    batch = Batch.from_arrays([], np.zeros(0), rows[:queries], rows[queries:], rows[: 2 * queries] % queries)
    batch = replace(batch, known=torch.tensor([[0], [queries]])) if copies else batch
    x = torch.nn.functional.normalize(torch.randn(3 * queries, width), dim=1)
    with LiveBytes() as live:
        build_loss(loss).compute(x, batch)
    load = RankLoad(0, 0, 0, texts=3 * queries, queries=queries, documents=2 * queries)
    vectors = 3 * 4 * width * 3 * queries  # and their gradient, once in the order of texts
    predicted = cost_memory.loss_tile(loss, load) + vectors
    masks = 0 if copies else 3 * 128 * 2 * queries  # counted, and not there
    assert live.peak == pytest.approx(predicted - masks, rel=0.15)
    assert live.peak < 4 * queries * 2 * queries * len(loss.directions), "the control: all similarities"
