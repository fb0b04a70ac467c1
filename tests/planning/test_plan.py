"""The cost model gives the design's figures, and refuses what it cannot know."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from reasoning_embedding import config
from reasoning_embedding.cli.main import main
from reasoning_embedding.config import EngineSettings
from reasoning_embedding.planning.devices import gpu_named
from reasoning_embedding.planning.memory import RankLoad, activation_bytes, kept_bytes
from reasoning_embedding.planning.plan import cost
from reasoning_embedding.planning.shapes import backbone_shape, known_shape
from reasoning_embedding.planning.texts import TextLengths
from reasoning_embedding.planning.time import communication_bytes, compute_seconds, forward_seconds, link_rate
from tests.factories import run_config

SMALL, MIDDLE, LARGE, LARGEST = (known_shape(f"Qwen/Qwen3-{size}") for size in ("0.6B", "1.7B", "4B", "8B"))
H200 = gpu_named("H200")
# In this mix a token finds itself in a text of 230 tokens in the mean.
MIX = TextLengths(120.0, 120.0 * 230.0, 3.0, 10_000, "given")


def settings(path: str = "Qwen/Qwen3-0.6B", **training: object) -> config.RunConfig:
    return run_config(
        backbone={"path": path},
        data={"sources": [{"kind": "hub", "dataset": "a/b"}], "negatives": 1},
        training={"batch_size": 256, **training},
    )


def test_activations_of_a_token_at_06b() -> None:
    def kept(**options: Any) -> float:
        return kept_bytes(config.Training(**options)).bytes(SMALL)

    stream = 2 * 0.057e6  # of float32 in all of them
    assert kept(compile=True) - stream == pytest.approx(1.43e6, rel=0.005)
    assert kept(activation_checkpointing="selective") - stream == pytest.approx(0.80e6, rel=0.005)
    assert kept(activation_checkpointing=True) == pytest.approx(stream, rel=0.01)


def test_more_recomputation_keeps_less() -> None:
    kept = [
        activation_bytes(SMALL, config.Training(**options))  # ty: ignore[invalid-argument-type]
        for options in (
            {"precision": "fp32"},
            {},
            {"compile": True},
            {"activation_checkpointing": "selective"},
            {"activation_checkpointing": True},
            {"activation_checkpointing": "offload"},
        )
    ]
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) == len(kept)


@pytest.mark.parametrize(
    ("shape", "products", "attention", "elementwise"),
    [(SMALL, 3.9, 1.0, 1.0), (MIDDLE, 11.6, 1.0, 1.8), (LARGE, 29.1, 2.4, 3.3), (LARGEST, 54.4, 2.4, 4.4)],
)
def test_time_of_a_token_on_an_h200(
    shape: object, products: float, attention: float, elementwise: float
) -> None:
    found = compute_seconds(shape, config.Training(compile=True), 1e6, 230e6, H200)  # ty: ignore[invalid-argument-type]
    assert found == pytest.approx(
        {
            "products": products,
            "adapters": 0,
            "attention": attention,
            "elementwise": elementwise,
            "eager_kernels": 0,
        },
        rel=0.07,
    )
    eager = compute_seconds(shape, config.Training(), 1e6, 230e6, H200)  # ty: ignore[invalid-argument-type]
    assert eager["eager_kernels"] > 5


def test_frozen_matrices_take_two_thirds_and_their_adapters_are_narrow() -> None:
    full = compute_seconds(SMALL, config.Training(compile=True), 1e6, 230e6, H200)
    lora = config.Lora(rank=16, target_modules=["q_proj"])
    found = compute_seconds(SMALL, config.Training(compile=True, lora=lora), 1e6, 230e6, H200)
    assert found["products"] == pytest.approx(full["products"] * 4 / 6)
    assert found["attention"] == full["attention"], "its gradient flows on"
    # Layers x rank x (columns + rows) parameters, three products each, at 16 / (16 + 171) of 0.8 x 989 TFLOP/s.
    products = 6 * 28 * 16 * (1024 + 2048) * 1e6
    assert found["adapters"] == pytest.approx(products / (0.8 * 989e12 * 16 / 187))
    forward = forward_seconds(found, frozen=True)
    others = sum(found.values()) - found["products"]
    assert forward == pytest.approx(found["products"] / 2 + others / 3)
    assert forward_seconds(full, frozen=False) == pytest.approx(sum(full.values()) / 3)


def test_what_is_computed_again() -> None:
    def again(**training: object) -> tuple[float, dict[str, float]]:
        one = cost(settings(batch_size=128, **training), SMALL, MIX, gpus=1, gpu="H200")
        compute = one["engines"]["replicated"]["compute_seconds"]
        return compute["second_forward"], compute

    none, compute = again()
    assert none == 0
    work = {name: seconds for name, seconds in compute.items() if name not in ("loss", "second_forward")}
    assert again(activation_checkpointing=True)[0] == pytest.approx(sum(work.values()) / 3)
    elementwise = (work["elementwise"] + work["eager_kernels"]) / 3
    assert again(activation_checkpointing="selective")[0] == pytest.approx(elementwise)
    assert again(memory="replay", lora={"rank": 4})[0] > again(activation_checkpointing="selective")[0]


def test_time_of_what_is_sent() -> None:
    load = RankLoad(1.0, 1.0, 1.0, 196_608, 65_536, 131_072)
    sent = communication_bytes(SMALL, config.Training(), EngineSettings(), 8, load, passes=2)
    assert sent["embeddings"] / link_rate(H200, 8) == pytest.approx(1.9e-3, rel=0.03)
    assert sent["gradients"] / link_rate(H200, 8) == pytest.approx(11e-3, rel=0.03)
    assert link_rate(H200, 16) < link_rate(H200, 8) / 5, "beyond a node the network carries it"


def test_a_bf16_gather_sends_half_and_a_second_forward_more() -> None:
    load = RankLoad(1.0, 1.0, 1.0, 1, 1, 1)

    def gathered(precision: Literal["bf16", "fp32"], passes: int) -> float:
        training = config.Training(precision=precision)
        sent = communication_bytes(SMALL, training, EngineSettings("fsdp2"), 8, load, passes=passes)
        return sent["parameters"]

    assert gathered("fp32", 2) == 2 * gathered("bf16", 2)
    assert gathered("fp32", 3) == 1.5 * gathered("fp32", 2)


def test_the_mode_follows_from_the_memory() -> None:
    def mode(**training: object) -> tuple[str, bool]:
        one = cost(settings(**training), SMALL, MIX, gpus=1, gpu="H200")["engines"]["replicated"]
        return one["mode"], one["fits"]

    assert mode(batch_size=128) == ("store", True)
    assert mode(batch_size=2048) == ("hybrid", True)
    assert mode(batch_size=2048, memory="replay") == ("replay", True)
    assert mode(batch_size=2048, memory="store") == ("store", False)
    assert mode(batch_size=2048, activation_checkpointing=True) == ("store", True)
    a24 = cost(settings(pack_tokens=4096), SMALL, MIX, gpus=1, gpu="L4")["engines"]["replicated"]
    assert a24["mode"] in ("hybrid", "replay")


def test_hybrid_fills_the_memory_and_costs_a_part_of_a_second_forward() -> None:
    hybrid = cost(settings(batch_size=1024), SMALL, MIX, gpus=1, gpu="H200")["engines"]["replicated"]
    assert hybrid["mode"] == "hybrid"
    assert 0.85 * 141e9 < hybrid["memory_total"] < 0.95 * 141e9
    share = hybrid["compute_seconds"]["second_forward"] / sum(
        hybrid["compute_seconds"][name] for name in ("products", "attention", "elementwise", "eager_kernels")
    )
    tokens = 1024 * 3 * 120
    assert share == pytest.approx((1 - hybrid["store_tokens"] / tokens) / 3, rel=1e-3)


def test_a_plan_knows_the_precision_the_memory_allowed_and_what_is_refused() -> None:
    def one(**options: object) -> dict[str, Any]:
        found = cost(settings(batch_size=512, **options), SMALL, MIX, gpus=8, gpu="H200")
        return found["engines"]["replicated"] | {"known": set(found["engines"])}

    plain = one()
    assert 5 < one(precision="fp32")["step_seconds"] / plain["step_seconds"] < 15
    tight = one(memory_gib=60)
    assert (plain["mode"], tight["mode"]) == ("store", "hybrid")
    assert tight["memory_total"] <= 60 * 2**30
    assert one(optimizer={"kind": "muon"})["known"] == {"replicated"}
    assert "zero3" in plain["known"]


def test_replicated_gradients_hide_behind_the_last_backward_pass_alone() -> None:
    def exposed(pack_tokens: int) -> tuple[float, float]:
        one = cost(settings(batch_size=512, pack_tokens=pack_tokens), SMALL, MIX, gpus=8, gpu="H200")
        one = one["engines"]["replicated"]
        gradients = one["communication_seconds"] * one["communication_bytes"]["gradients"]
        gradients /= sum(one["communication_bytes"].values())
        return one["communication_seconds"] - (
            one["step_seconds"] - sum(one["compute_seconds"].values())
        ), gradients

    hidden, gradients = exposed(16384)
    assert hidden == pytest.approx(gradients)
    short, gradients = exposed(256)
    assert 0 < short < 0.5 * gradients


@pytest.mark.parametrize("gpus", [1, 8, 1024])
@pytest.mark.parametrize("path", ["Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B"])
def test_from_one_gpu_to_a_thousand(gpus: int, path: str) -> None:
    run = settings(path, batch_size=4096, compile=True, pack_tokens=4096)
    found = cost(run, backbone_shape(run.backbone), MIX, gpus=gpus, gpu="H200")
    assert found["steps"] == 10_000 // 4096
    assert found["tokens_per_step"] == 4096 * 3 * 120
    for one in found["engines"].values():
        assert all(value >= 0 for value in one["memory_bytes"].values())
        assert 0 < one["mfu"] < 0.6
        assert one["tokens_per_second"] * one["step_seconds"] == pytest.approx(found["tokens_per_step"])
    if gpus == 1:
        assert list(found["engines"]) == ["replicated"]
        return
    assert set(found["engines"]) == {"replicated", "zero1", "zero2", "zero3", "fsdp2"}
    assert found["engines"][found["engine"]]["fits"]
    if path.endswith("8B"):
        assert not found["engines"]["replicated"]["fits"], "16 bytes a parameter alone are 121 GB"


def test_eight_billion_need_more_than_one_80_gb_gpu() -> None:
    run = settings("Qwen/Qwen3-8B", pack_tokens=2048)
    shape = backbone_shape(run.backbone)
    assert cost(run, shape, MIX, gpus=1, gpu="H100")["engine"] is None
    assert cost(run, shape, MIX, gpus=8, gpu="H100")["engine"] in ("zero3", "fsdp2", "zero2")


def run_file(folder: Path, backbone: str, **training: int) -> Path:
    file = folder / "run.yaml"
    lines = "".join(f"  {key}: {value}\n" for key, value in ({"batch_size": 64} | training).items())
    file.write_text(
        f"kind: run\nname: x\nbackbone: {{kind: pretrained, path: {backbone}}}\n"
        f"data: {{sources: [{{kind: world}}]}}\ntraining:\n{lines}"
    )
    return file


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        main(["plan", *arguments])
    return int(done.value.code or 0)


def test_the_verb_prints_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run_file(tmp_path, "Qwen/Qwen3-4B-Base")
    assert call(str(file), "training.steps=1000", "--gpus", "16") == 0
    out = capsys.readouterr().out
    assert "on 16 x H200" in out
    assert "four characters a token" in out
    assert all(f"\n{name} " in out for name in ("replicated", "zero1", "zero2", "zero3", "fsdp2"))
    assert call(str(file), "--gpu", "H200", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["texts"]["rows"] > 100
    assert {"weights", "gradients", "optimizer", "activations", "loss", "embeddings"} <= found["engines"][
        "replicated"
    ]["memory_bytes"].keys()


def test_the_verb_plans_for_a_launchers_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    file, launcher = run_file(tmp_path, "Qwen/Qwen3-4B-Base"), "configs/accelerate/8gpu-zero3-offload.yaml"
    assert call(str(file), "--launcher", launcher) == 0
    out = capsys.readouterr().out
    assert "on 8 x H200" in out
    assert "replicated" not in out
    assert "zero3, ms a step between GPU and host: weights " in out
    # Weights 4, moments 8, a copy to step on 4, gradients twice 4 bytes a parameter.
    whole = 24 * known_shape("Qwen/Qwen3-4B").parameters / 1e9
    assert f"zero3, GB of host memory a node: {whole:.3g} (weights {whole / 6:.3g}, " in out
    assert call(str(file), "--launcher", launcher, "--gpus", "16", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["gpus"], list(found["engines"])) == (16, ["zero3"])
    assert call(str(file), "training.optimizer.kind=muon", "--launcher", launcher) == 2
    assert "training.optimizer is muon" in capsys.readouterr().err
    assert call(str(file), "--gpus", "1") == 0
    assert "host" not in capsys.readouterr().out


def test_a_plan_needs_no_torch(tmp_path: Path) -> None:
    """Describing a run never imports it: a plan for a launcher's file takes half a second."""
    root = Path(__file__).resolve().parents[2]
    arguments = ["plan", str(run_file(tmp_path, "Qwen/Qwen3-4B-Base")), "--launcher"]
    code = (
        "import sys\n"
        "from reasoning_embedding.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code, *arguments, "configs/accelerate/8gpu-zero2.yaml"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "zero2" in done.stdout


@pytest.mark.parametrize(
    ("backbone", "arguments", "message"),
    [
        ("Qwen/Qwen3-0.6B", ("--gpu", "H20O"), "did you mean 'H200'"),
        ("Qwen/Qwen3-06B", (), "did you mean 'Qwen/Qwen3-0.6B'"),
        ("Qwen/Qwen3-0.6B", ("--gpus", "128"), "128 GPUs share 64 queries"),
        ("Qwen/Qwen3-0.6B", ("--gpus", "0"), "--gpus"),
    ],
)
def test_what_cannot_be_planned(
    backbone: str,
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(str(run_file(tmp_path, backbone)), *arguments) == 2
    assert message in capsys.readouterr().err
