"""What engines hold on GPU and host, what they copy between the two, and what a frozen anchor adds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reasoning_embedding import config
from reasoning_embedding.config import EngineSettings
from reasoning_embedding.planning.devices import gpu_named
from reasoning_embedding.planning.memory import (
    RankLoad,
    fixed_memory,
    offloaded_activations,
    offloaded_memory,
    reduction_memory,
    trained_parameters,
)
from reasoning_embedding.planning.plan import cost
from reasoning_embedding.planning.shapes import DecoderShape, known_shape
from reasoning_embedding.planning.texts import TextLengths
from reasoning_embedding.planning.time import copied_bytes, copy_rate, host_step_seconds
from tests.factories import run_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
QWEN, LARGE = (known_shape(f"Qwen/Qwen3-{size}") for size in ("0.6B", "4B"))
H200, A100 = gpu_named("H200"), gpu_named("A100")
MIX = TextLengths(120.0, 120.0 * 230.0, 3.0, 10_000, "given")
#: Two layers of width 10: each 2 x 10 x 2 x (4 + 2) + 3 x 10 x 30 = 1140 parameters; a table of 100 x 10.
SMALL = DecoderShape(2, 10, 30, 4, 2, 2, 100)
BODY, TABLE = 2 * 1140, 1000
ALL = BODY + TABLE
OFFLOADED = EngineSettings(
    "zero3", optimizer_on_host=True, weights_on_host=True, bucket_elements=50, live_elements=2000
)
LOAD = RankLoad(80.0, 80.0, 40.0, 6, 2, 4)


def test_state_of_fp32_adam_at_06b() -> None:
    parts = fixed_memory(QWEN, config.Training(), EngineSettings("replicated"), 8)
    assert sum(parts.values()) == pytest.approx(11e9 * 0.87, rel=0.05)
    assert parts["weights"] == parts["gradients"] == parts["optimizer"] / 2


@pytest.mark.parametrize(
    ("engine", "whole", "divided"),
    [
        ("zero1", ("weights", "gradients"), ("optimizer",)),
        ("zero2", ("weights", "gradients"), ("optimizer",)),
        ("zero3", ("gradients",), ("optimizer", "weights")),
        ("fsdp2", ("gradients",), ("optimizer", "weights")),
    ],
)
def test_what_an_engine_divides(engine: Any, whole: tuple[str, ...], divided: tuple[str, ...]) -> None:
    alone = fixed_memory(LARGE, config.Training(), EngineSettings("replicated"), 16)
    parts = fixed_memory(LARGE, config.Training(), EngineSettings(engine), 16)
    assert {name: alone[name] / parts[name] for name in whole} == dict.fromkeys(whole, 1)
    assert {name: alone[name] / parts[name] for name in divided} == dict.fromkeys(divided, 16)


def test_other_optimizers_and_adapters_hold_less() -> None:
    def held(**options: object) -> float:
        training = config.Training.model_validate(options)
        return fixed_memory(QWEN, training, EngineSettings("replicated"), 1)["optimizer"]

    assert held(optimizer={"kind": "adamw8bit"}) == held() / 4
    assert held() / 2 < held(optimizer={"kind": "muon"}) < held()
    lora = config.Lora(rank=16)
    assert trained_parameters(QWEN, lora) == 28 * 16 * (4 * 1024 + 2 * 2048 + 2 * 1024 + 3 * 4096)
    assert held(lora={"rank": 16}) == 8 * trained_parameters(QWEN, lora)


@pytest.mark.parametrize(
    ("engine", "parts"),
    [
        (EngineSettings("zero2"), {"weights": 4 * ALL, "optimizer": 2 * ALL, "master_weights": ALL}),
        (
            EngineSettings("zero3", bucket_elements=50, live_elements=2500),
            {
                "weights": ALL, "optimizer": 2 * ALL, "master_weights": ALL, "gradient_parts": ALL,
                "gathered_weights": 4 * 2500, "reduce_buckets": 4 * 50,
            },
        ),
        (EngineSettings("zero3", bucket_elements=0, live_elements=10**9), {
            "weights": ALL, "optimizer": 2 * ALL, "master_weights": ALL, "gradient_parts": ALL,
            "gathered_weights": 4 * ALL, "reduce_buckets": 0,
        }),
        (OFFLOADED, {"gathered_weights": 4 * BODY, "reduce_buckets": 4 * 50}),
        # bf16: two layers and the table.
        (EngineSettings("fsdp2"), {"weights": ALL, "optimizer": 2 * ALL, "gathered_weights": 2 * ALL}),
        (EngineSettings("fsdp2", optimizer_on_host=True, weights_on_host=True), {"gathered_weights": 2 * ALL}),
        (EngineSettings("zero2", optimizer_on_host=True), {"weights": 4 * ALL}),
    ],
    ids=str,
)  # fmt: skip
def test_each_engine_holds_on_four_gpus(engine: EngineSettings, parts: dict[str, float]) -> None:
    """Of AdamW's 4 + 4 + 8 bytes a parameter, a quarter of what is cut; gradients whole until the reduction."""
    assert fixed_memory(SMALL, config.Training(), engine, 4) == {"gradients": 4 * ALL} | parts


@pytest.mark.parametrize(
    ("engine", "bytes_a_parameter"),
    [
        (EngineSettings("fsdp2"), 0),
        (EngineSettings("fsdp2", optimizer_on_host=True, weights_on_host=True), 4 + 8 + 4),
        (EngineSettings("zero2", optimizer_on_host=True), 8 + 4 + 4 + 4),
        (replace(OFFLOADED, weights_on_host=False), 8 + 4 + 4 + 4),
        (OFFLOADED, 4 + 8 + 4 + 4 + 4),
    ],
    ids=str,
)
def test_host_memory(engine: EngineSettings, bytes_a_parameter: int) -> None:
    """Weights 4, moments 8, gradients 4, and DeepSpeed's copies: to step on, of gradients, of stepped weights."""
    assert sum(offloaded_memory(SMALL, config.Training(), engine, 4).values()) == bytes_a_parameter * ALL / 4


def test_a_reduction_counts_when_it_takes_more_than_the_batch() -> None:
    training = config.Training()
    assert (
        reduction_memory(SMALL, training, EngineSettings("zero2", bucket_elements=500), 4)
        == 4 * 2 * 500 + ALL
    )
    assert (
        reduction_memory(SMALL, training, EngineSettings("zero1", bucket_elements=500, buckets=1), 4)
        == 4 * 500 + ALL
    )
    assert reduction_memory(SMALL, training, EngineSettings("zero3", bucket_elements=10**6), 4) == 4 * ALL
    assert reduction_memory(SMALL, training, EngineSettings("fsdp2"), 4) == 0

    def planned(**options: Any) -> dict[str, float]:
        found = cost(run(**options), QWEN, MIX, gpus=8, gpu="H200", engine=EngineSettings("zero2"))
        return found["engines"]["zero2"]["memory_bytes"]

    assert planned(batch_size=512)["reduction"] == 0
    small = planned(batch_size=8, activation_checkpointing=True)
    batch = sum(small[name] for name in ("activations", "weight_copies", "working", "loss", "embeddings"))
    assert small["reduction"] + batch == pytest.approx(4 * 2 * 2e8 + 4 * QWEN.parameters / 8)


def test_what_is_copied_between_gpu_and_host() -> None:
    training = config.Training(activation_checkpointing="offload")
    # Down and up: 80 tokens, two layers, 4 bytes of each of 10 elements.
    assert offloaded_activations(SMALL, training, LOAD) == 80 * 2 * 40
    assert offloaded_activations(SMALL, config.Training(activation_checkpointing=True), LOAD) == 0
    found = copied_bytes(SMALL, training, OFFLOADED, 4, LOAD, passes=4)
    assert found == {
        "activations": 2 * 80 * 2 * 40,
        "weights": 4 * ALL / 4 * 4,
        "gradients": 3 * 4 * ALL / 4,
        "stepped_weights": 0,
    }
    below = copied_bytes(
        SMALL, config.Training(), EngineSettings("zero2", optimizer_on_host=True), 4, LOAD, passes=4
    )
    assert below == {"activations": 0, "gradients": ALL, "stepped_weights": ALL}
    assert copied_bytes(SMALL, config.Training(), EngineSettings("zero3"), 4, LOAD, passes=4) == {
        "activations": 0
    }
    assert (copy_rate(A100), copy_rate(H200)) == (0.8 * 32e9, 0.8 * 64e9)
    assert copy_rate(gpu_named("GH200")) == 0.8 * 450e9
    assert host_step_seconds(SMALL, config.Training(), OFFLOADED, 4) == 28 * ALL / 4 / 50e9
    assert host_step_seconds(SMALL, config.Training(), EngineSettings("zero3"), 4) == 0


def run(*, loss: dict[str, Any] | None = None, **training: Any) -> config.RunConfig:
    return run_config(
        backbone={"path": "Qwen/Qwen3-0.6B"},
        data={"sources": [{"kind": "hub", "dataset": "a/b"}], "negatives": 1},
        loss=loss or {},
        training={"batch_size": 256, **training},
    )


def test_offloading_saves_gpu_memory_and_costs_time() -> None:
    def one(engine: EngineSettings, **training: Any) -> dict[str, Any]:
        found = cost(run(**training), LARGE, MIX, gpus=8, gpu="H200", engine=engine)
        assert list(found["engines"]) == [engine.name]
        return found["engines"][engine.name]

    plain = one(EngineSettings("zero3"))
    off = one(EngineSettings("zero3", optimizer_on_host=True, weights_on_host=True))
    saved = sum(
        plain["memory_bytes"][name] - off["memory_bytes"].get(name, 0) for name in ("weights", "optimizer")
    )
    assert saved == pytest.approx((4 + 8) * LARGE.parameters / 8)
    waited = off["host_seconds"]["gradients"] + off["host_seconds"]["optimizer"]
    assert off["step_seconds"] >= plain["step_seconds"] + 0.999 * waited
    assert sum(plain["host_seconds"].values()) == sum(plain["host_memory_bytes"].values()) == 0

    held, moved = (
        one(EngineSettings("fsdp2"), activation_checkpointing=True),
        one(EngineSettings("fsdp2"), activation_checkpointing="offload"),
    )
    inputs = 32 * 3 * 120 * 36 * 4 * 2560  # a rank's 32 queries, of three texts of 120 tokens
    assert moved["host_memory_bytes"]["activations"] == pytest.approx(inputs)
    assert moved["step_seconds"] - held["step_seconds"] == pytest.approx(2 * inputs / (0.8 * 64e9))
    assert moved["memory_total"] < held["memory_total"]


def test_an_anchor_is_a_second_backbone_and_its_forward() -> None:
    def one(loss: dict[str, Any]) -> dict[str, Any]:
        return cost(run(loss=loss), QWEN, MIX, gpus=8, gpu="H200", engine=EngineSettings("fsdp2"))["engines"][
            "fsdp2"
        ]

    plain, anchored = one({}), one({"anchor": {"weight": 0.1}})
    texts = 256 * 3
    assert anchored["memory_bytes"]["anchor"] == 4 * QWEN.parameters + 6 * 4 * texts * 1024
    assert "anchor" not in plain["memory_bytes"]
    work = sum(
        seconds
        for name, seconds in plain["compute_seconds"].items()
        if name not in ("loss", "second_forward")
    )
    compare = 12 * texts * 1024**2 / (989e12 / 15) / 0.8
    assert anchored["compute_seconds"]["anchor"] == pytest.approx(work / 3 + compare)
    gathered = anchored["communication_bytes"]["embeddings"]
    assert gathered == 2 * plain["communication_bytes"]["embeddings"]
