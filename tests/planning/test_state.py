"""What engines hold on GPU and host, what they copy between the two, and what a frozen anchor adds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reasoning_embedding import config
from reasoning_embedding.errors import InputError
from reasoning_embedding.planning.engines import HOLDINGS, Holding, holding_of, read_launcher
from reasoning_embedding.planning.flops import DecoderShape
from reasoning_embedding.planning.host_memory import (
    copied_bytes,
    copy_rate,
    host_activations,
    host_step_seconds,
)
from reasoning_embedding.planning.memory import Load
from reasoning_embedding.planning.plan import cost, gpu_named
from reasoning_embedding.planning.shapes import known_shape
from reasoning_embedding.planning.state import fixed_memory, host_memory, reduction_memory, trained_parameters
from reasoning_embedding.planning.texts import Texts

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
QWEN, LARGE = (known_shape(f"Qwen/Qwen3-{size}") for size in ("0.6B", "4B"))
H200, A100 = gpu_named("H200"), gpu_named("A100")
MIX = Texts(120.0, 120.0 * 230.0, 3.0, 10_000, "given")
#: Two layers of width 10: each 2 x 10 x 2 x (4 + 2) + 3 x 10 x 30 = 1140 parameters; a table of 100 x 10.
SMALL = DecoderShape(2, 10, 30, 4, 2, 2, 100)
BODY, TABLE = 2 * 1140, 1000
ALL = BODY + TABLE
OFFLOADED = Holding("zero3", optimizer_on_host=True, weights_on_host=True, bucket=50, live=2000)
LOAD = Load(80.0, 80.0, 40.0, 6, 2, 4)


def test_state_of_fp32_adam_at_06b() -> None:
    parts = fixed_memory(QWEN, config.Training(), HOLDINGS["replicated"], 8)
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
    alone = fixed_memory(LARGE, config.Training(), HOLDINGS["replicated"], 16)
    parts = fixed_memory(LARGE, config.Training(), HOLDINGS[engine], 16)
    assert {name: alone[name] / parts[name] for name in whole} == dict.fromkeys(whole, 1)
    assert {name: alone[name] / parts[name] for name in divided} == dict.fromkeys(divided, 16)


def test_other_optimizers_and_adapters_hold_less() -> None:
    def held(**options: object) -> float:
        training = config.Training.model_validate(options)
        return fixed_memory(QWEN, training, HOLDINGS["replicated"], 1)["optimizer"]

    assert held(optimizer={"kind": "adamw8bit"}) == held() / 4
    assert held() / 2 < held(optimizer={"kind": "muon"}) < held()
    lora = config.Lora(rank=16)
    assert trained_parameters(QWEN, lora) == 28 * 16 * (4 * 1024 + 2 * 2048 + 2 * 1024 + 3 * 4096)
    assert held(lora={"rank": 16}) == 8 * trained_parameters(QWEN, lora)


@pytest.mark.parametrize(
    ("holding", "parts"),
    [
        (Holding("zero2"), {"weights": 4 * ALL, "optimizer": 2 * ALL, "master_weights": ALL}),
        (
            Holding("zero3", bucket=50, live=2500),
            {
                "weights": ALL, "optimizer": 2 * ALL, "master_weights": ALL, "gradient_parts": ALL,
                "gathered_weights": 4 * 2500, "reduce_buckets": 4 * 50,
            },
        ),
        (Holding("zero3", bucket=0, live=10**9), {
            "weights": ALL, "optimizer": 2 * ALL, "master_weights": ALL, "gradient_parts": ALL,
            "gathered_weights": 4 * ALL, "reduce_buckets": 0,
        }),
        (OFFLOADED, {"gathered_weights": 4 * BODY, "reduce_buckets": 4 * 50}),
        # bf16: two layers and the table.
        (Holding("fsdp2"), {"weights": ALL, "optimizer": 2 * ALL, "gathered_weights": 2 * ALL}),
        (Holding("fsdp2", optimizer_on_host=True, weights_on_host=True), {"gathered_weights": 2 * ALL}),
        (Holding("zero2", optimizer_on_host=True), {"weights": 4 * ALL}),
    ],
    ids=str,
)  # fmt: skip
def test_each_engine_holds_on_four_gpus(holding: Holding, parts: dict[str, float]) -> None:
    """Of AdamW's 4 + 4 + 8 bytes a parameter, a quarter of what is cut; gradients whole until the reduction."""
    assert fixed_memory(SMALL, config.Training(), holding, 4) == {"gradients": 4 * ALL} | parts


@pytest.mark.parametrize(
    ("holding", "bytes_a_parameter"),
    [
        (Holding("fsdp2"), 0),
        (Holding("fsdp2", optimizer_on_host=True, weights_on_host=True), 4 + 8 + 4),
        (Holding("zero2", optimizer_on_host=True), 8 + 4 + 4 + 4),
        (replace(OFFLOADED, weights_on_host=False), 8 + 4 + 4 + 4),
        (OFFLOADED, 4 + 8 + 4 + 4 + 4),
    ],
    ids=str,
)
def test_host_memory(holding: Holding, bytes_a_parameter: int) -> None:
    """Weights 4, moments 8, gradients 4, and DeepSpeed's copies: to step on, of gradients, of stepped weights."""
    assert sum(host_memory(SMALL, config.Training(), holding, 4).values()) == bytes_a_parameter * ALL / 4


def test_a_reduction_counts_when_it_takes_more_than_the_batch() -> None:
    training = config.Training()
    assert reduction_memory(SMALL, training, Holding("zero2", bucket=500), 4) == 4 * 2 * 500 + ALL
    assert reduction_memory(SMALL, training, Holding("zero1", bucket=500, buckets=1), 4) == 4 * 500 + ALL
    assert reduction_memory(SMALL, training, Holding("zero3", bucket=10**6), 4) == 4 * ALL
    assert reduction_memory(SMALL, training, HOLDINGS["fsdp2"], 4) == 0

    def planned(**options: Any) -> dict[str, float]:
        found = cost(run(**options), QWEN, MIX, gpus=8, gpu="H200", holding=Holding("zero2"))
        return found["engines"]["zero2"]["memory_bytes"]

    assert planned(batch_size=512)["reduction"] == 0
    small = planned(batch_size=8, activation_checkpointing=True)
    batch = sum(small[name] for name in ("activations", "weight_copies", "working", "loss", "embeddings"))
    assert small["reduction"] + batch == pytest.approx(4 * 2 * 2e8 + 4 * QWEN.parameters / 8)


def test_what_is_copied_between_gpu_and_host() -> None:
    training = config.Training(activation_checkpointing="offload")
    # Down and up: 80 tokens, two layers, 4 bytes of each of 10 elements.
    assert host_activations(SMALL, training, LOAD) == 80 * 2 * 40
    assert host_activations(SMALL, config.Training(activation_checkpointing=True), LOAD) == 0
    found = copied_bytes(SMALL, training, OFFLOADED, 4, LOAD, passes=4)
    assert found == {
        "activations": 2 * 80 * 2 * 40,
        "weights": 4 * ALL / 4 * 4,
        "gradients": 3 * 4 * ALL / 4,
        "stepped_weights": 0,
    }
    below = copied_bytes(
        SMALL, config.Training(), Holding("zero2", optimizer_on_host=True), 4, LOAD, passes=4
    )
    assert below == {"activations": 0, "gradients": ALL, "stepped_weights": ALL}
    assert copied_bytes(SMALL, config.Training(), HOLDINGS["zero3"], 4, LOAD, passes=4) == {"activations": 0}
    assert (copy_rate(A100), copy_rate(H200)) == (0.8 * 32e9, 0.8 * 64e9)
    assert copy_rate(gpu_named("GH200")) == 0.8 * 450e9
    assert host_step_seconds(SMALL, config.Training(), OFFLOADED, 4) == 28 * ALL / 4 / 50e9
    assert host_step_seconds(SMALL, config.Training(), HOLDINGS["zero3"], 4) == 0


def run(*, loss: dict[str, Any] | None = None, **training: Any) -> config.RunConfig:
    return config.RunConfig.model_validate(
        {
            "kind": "run",
            "name": "x",
            "backbone": {"kind": "pretrained", "path": "Qwen/Qwen3-0.6B"},
            "data": {"sources": [{"kind": "hub", "dataset": "a/b"}], "negatives": 1},
            "loss": loss or {},
            "training": {"batch_size": 256, **training},
        }
    )


def test_offloading_saves_gpu_memory_and_costs_time() -> None:
    def one(holding: Holding, **training: Any) -> dict[str, Any]:
        found = cost(run(**training), LARGE, MIX, gpus=8, gpu="H200", holding=holding)
        assert list(found["engines"]) == [holding.engine]
        return found["engines"][holding.engine]

    plain = one(Holding("zero3"))
    off = one(Holding("zero3", optimizer_on_host=True, weights_on_host=True))
    saved = sum(
        plain["memory_bytes"][name] - off["memory_bytes"].get(name, 0) for name in ("weights", "optimizer")
    )
    assert saved == pytest.approx((4 + 8) * LARGE.parameters / 8)
    waited = off["host_seconds"]["gradients"] + off["host_seconds"]["optimizer"]
    assert off["step_seconds"] >= plain["step_seconds"] + 0.999 * waited
    assert sum(plain["host_seconds"].values()) == sum(plain["host_memory_bytes"].values()) == 0

    held, moved = (
        one(Holding("fsdp2"), activation_checkpointing=True),
        one(Holding("fsdp2"), activation_checkpointing="offload"),
    )
    inputs = 32 * 3 * 120 * 36 * 4 * 2560  # a rank's 32 queries, of three texts of 120 tokens
    assert moved["host_memory_bytes"]["activations"] == pytest.approx(inputs)
    assert moved["step_seconds"] - held["step_seconds"] == pytest.approx(2 * inputs / (0.8 * 64e9))
    assert moved["memory_total"] < held["memory_total"]


def test_an_anchor_is_a_second_backbone_and_its_forward() -> None:
    def one(loss: dict[str, Any]) -> dict[str, Any]:
        return cost(run(loss=loss), QWEN, MIX, gpus=8, gpu="H200", holding=HOLDINGS["fsdp2"])["engines"][
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


@pytest.mark.parametrize(
    ("file", "holding", "processes"),
    [
        ("1gpu", HOLDINGS["replicated"], 1),
        ("8gpu-ddp", HOLDINGS["replicated"], 8),
        ("8gpu-fsdp2", HOLDINGS["fsdp2"], 8),
        ("multi-node-fsdp2", HOLDINGS["fsdp2"], 32),
        ("8gpu-zero2", HOLDINGS["zero2"], 8),
        ("8gpu-zero3-offload", Holding("zero3", optimizer_on_host=True, weights_on_host=True), 8),
    ],
)
def test_our_launchers_files(
    file: str, holding: Holding, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a plan assumes of an engine is what its file here says."""
    monkeypatch.chdir(CONFIGS.parent)  # where a job is launched
    launch, found = read_launcher(CONFIGS / "accelerate" / f"{file}.yaml")
    assert (holding_of(launch), found) == (holding, processes)


def test_other_launchers_files(tmp_path: Path) -> None:
    file, inner = tmp_path / "accelerate.yaml", tmp_path / "deepspeed.json"

    def read(zero: dict[str, Any]) -> Holding:
        inner.write_text(json.dumps({"zero_optimization": zero}))
        file.write_text(
            f"distributed_type: DEEPSPEED\ndeepspeed_config: {{deepspeed_config_file: {inner}}}\n"
        )
        return holding_of(read_launcher(file)[0])

    assert read({"stage": 1}) == Holding("zero1", bucket=500_000_000, buckets=1), "DeepSpeed's own"
    assert read({"stage": 3, "reduce_bucket_size": "auto", "stage3_max_live_parameters": 7}) == Holding(
        "zero3", bucket=500_000_000, live=7
    )
    assert read(
        {"stage": 2, "contiguous_gradients": False, "offload_optimizer": {"device": "cpu"}}
    ) == Holding("zero2", optimizer_on_host=True, bucket=0, buckets=1)
    assert not read({"stage": 2, "offload_optimizer": {"device": "none"}}).optimizer_on_host
    file.write_text(
        "distributed_type: FSDP\nfsdp_config: {fsdp_version: 2, fsdp_offload_params: true, "
        "fsdp_reshard_after_forward: false}\n"
    )
    offloaded = Holding("fsdp2", optimizer_on_host=True, weights_on_host=True, reshard=False)
    assert holding_of(read_launcher(file)[0]) == offloaded


@pytest.mark.parametrize("content", ["a: [", "- 1\n", "distributed_type: FSDP\n"])
def test_files_that_are_no_launchers(content: str, tmp_path: Path) -> None:
    file = tmp_path / "accelerate.yaml"
    file.write_text(content)
    with pytest.raises(InputError):
        read_launcher(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_launcher(tmp_path / "absent.yaml")
