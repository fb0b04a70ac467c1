"""Whole runs on every engine: saved as plain checkpoints, resumed on another number of ranks."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reasoning_embedding import training
from reasoning_embedding.backbones.cpu.elementwise_native import native_kernels
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.checkpoints.embedder import load_embedder
from reasoning_embedding.config import RunConfig, load_config
from reasoning_embedding.distributed import World
from reasoning_embedding.distributed.harness import run_ranks
from reasoning_embedding.errors import InputError

Write = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["red cat dog", "the moon sees a small river", "king"]


def _environment(kind: str, folder: Path) -> dict[str, str]:
    """What ``accelerate launch`` sets for an engine."""
    if kind == "fsdp2":
        return {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    if kind == "replicated":
        return {}
    file = folder / f"{kind}.json"
    settings = {
        "zero_optimization": {"stage": int(kind[-1]), "reduce_bucket_size": "auto"},
        "train_batch_size": 8,
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
    }
    file.write_text(json.dumps(settings))
    return {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)}


def _train(world: World, config: Path, environment: dict[str, str], resume: bool) -> list[str]:
    """One rank of a launched job, without the launcher."""
    os.environ.update(environment)
    training.loop.joined_world = lambda **_: contextlib.nullcontext(world)
    lines: list[str] = []
    training.train(load_config(config, expect=RunConfig).config, resume=resume, report=lines.append)
    return lines


def _weights(run: RunFolder, step: int) -> dict[str, torch.Tensor]:
    return load_file(run.checkpoint(step) / "model.safetensors")


def _distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


_SAVED = [("replicated", [3]), ("fsdp2", [2, 1, 3]), ("zero2", [3]), ("zero3", [2, 3])]
_ALL = [("replicated", [2, 1]), ("zero1", [2, 1, 3]), ("zero2", [2, 1]), ("zero3", [1])]


@pytest.mark.parametrize(
    ("kind", "resumed"),
    [*_SAVED, *(pytest.param(*case, marks=pytest.mark.slow) for case in _ALL)],
)
def test_runs_are_saved_whole_and_resume_on_any_number_of_ranks(
    kind: str, resumed: list[int], write_run: Write, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    if kind.startswith("zero"):
        pytest.importorskip("deepspeed.runtime.zero.muon.muon_optimizer")
    # Replicated with adapters: their dropout is the same on any number of ranks.
    adapters = {"lora": {"rank": 2, "dropout": 0.2}} if kind in ("replicated", "zero3") else {}
    config, environment = write_run(**adapters), _environment(kind, tmp_path)
    run_ranks(2, _train, config, environment, False)
    run = RunFolder(tmp_path / "runs" / "run")
    assert run.steps() == [0, 3, 6]
    wanted = _weights(run, 6)
    assert _distance(_weights(run, 0), wanted) > 1e-3

    ours, stock = load_embedder(run.checkpoint(6)), SentenceTransformer(str(run.checkpoint(6)), device="cpu")
    np.testing.assert_allclose(stock.encode(TEXTS), ours.encode(TEXTS), atol=1e-5)

    for ranks in resumed:
        shutil.rmtree(run.checkpoint(6))
        shutil.rmtree(run.state(6))
        lines = run_ranks(ranks, _train, config, environment, True)[0]
        assert "resumed after step 3" in lines
        distance = _distance(_weights(run, 6), wanted)
        assert distance == 0 if ranks == 2 else distance < 2e-5


#: A readout with heads that are trained.
HEADED = {
    "readout": {
        "attention": "causal",
        "pooling": "last",
        "heads": [{"out_features": 24, "activation": "tanh"}, {"out_features": 16}],
    }
}


def _all_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of a checkpoint with those of its heads."""
    return {
        f"{file.parent.relative_to(folder)} {name}": value
        for file in sorted(folder.glob("**/model.safetensors"))
        for name, value in load_file(file).items()
    }


def test_heads_of_a_run_are_trained_on_two_ranks_as_on_one(write_run: Write, tmp_path: Path) -> None:
    alone = write_run("alone", HEADED, max_grad_norm=0.5)
    run_ranks(1, _train, alone, {}, False)
    run_ranks(
        2, _train, write_run("sharded", HEADED, max_grad_norm=0.5), _environment("fsdp2", tmp_path), False
    )
    one, two = (RunFolder(tmp_path / "runs" / name) for name in ("alone", "sharded"))
    wanted = _all_weights(one.checkpoint(6))
    heads = [name for name in wanted if "Dense" in name]
    assert len(heads) == 4
    start = _all_weights(one.checkpoint(0))
    assert all(float((wanted[name] - start[name]).abs().max()) > 1e-4 for name in heads)
    assert _distance(_all_weights(two.checkpoint(6)), wanted) < 2e-5
    # The control: a run whose heads begin otherwise ends elsewhere.
    other = write_run("other", {**HEADED, "seed": 1}, max_grad_norm=0.5)
    run_ranks(1, _train, other, {}, False)
    assert _distance(_all_weights(RunFolder(tmp_path / "runs" / "other").checkpoint(6)), wanted) > 1e-2


def test_engines_train_the_same_model(write_run: Write, tmp_path: Path) -> None:
    """Six steps with clipping and weight decay end where one process ends."""
    pytest.importorskip("deepspeed.runtime.zero.muon.muon_optimizer")
    found = {}
    for kind, ranks in (("replicated", 1), ("fsdp2", 3), ("zero2", 2), ("zero3", 2)):
        config = write_run(f"{kind}-{ranks}", max_grad_norm=0.5)
        lines = run_ranks(ranks, _train, config, _environment(kind, tmp_path), False)[0]
        fused = any("layers run as one function" in line for line in lines)
        assert fused == (kind == "replicated" and native_kernels(torch.float32) is not None)
        found[kind, ranks] = _weights(RunFolder(tmp_path / "runs" / f"{kind}-{ranks}"), 6)
    for weights in found.values():
        assert _distance(weights, found["replicated", 1]) < 2e-5


def test_a_deepspeed_file_that_contradicts_the_run_is_refused_with_every_contradiction(
    write_run: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ds.json"
    settings = {
        "zero_optimization": {"stage": 2},
        "train_batch_size": 512,
        "train_micro_batch_size_per_gpu": 16,
        "gradient_accumulation_steps": 4,
        "gradient_clipping": 0.3,
        "optimizer": {"type": "Lamb"},
        "scheduler": {"type": "WarmupLR"},
        "bf16": {"enabled": True},
    }
    file.write_text(json.dumps(settings))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(InputError) as error:
        training.train(load_config(write_run(ranks=4), expect=RunConfig).config)
    text = str(error.value)
    for theirs, ours in [
        ("train_batch_size is 512", "batch_size is 8"),
        ("train_micro_batch_size_per_gpu is 16 on each of 1 ranks", "batch_size is 8"),
        ("gradient_accumulation_steps is 4", "pack_tokens"),
        ("gradient_clipping is 0.3", "max_grad_norm is 1.0"),
        ("optimizer is Lamb", "optimizer is adamw"),
        ("scheduler is WarmupLR", "schedule is cosine"),
        ("bf16.enabled is true", "precision is fp32"),
        ("mixed_precision is fp16", "precision is fp32"),
        ("started 1 ranks", "training.ranks is 4"),
    ]:
        assert any(theirs in line and ours in line for line in text.splitlines()), theirs
    assert str(file) in text
    assert not (tmp_path / "runs" / "run" / "checkpoints").exists()


def test_a_budget_below_the_longest_text_is_refused_before_training(write_run: Write, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"longer than training.pack_tokens = 4"):
        training.train(load_config(write_run(pack_tokens=4, steps=1), expect=RunConfig).config)
    assert not (tmp_path / "runs" / "run" / "checkpoints").exists()


def _torchrun(config: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.run(
        [*command, "-m", "reasoning_embedding", "train", str(config), *words],
        cwd=ROOT,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zero2", "fsdp2"])
def test_torchrun_trains_and_the_checkpoint_loads(kind: str, write_run: Write, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    done = _torchrun(write_run(ranks=2), _environment(kind, tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    run = RunFolder(tmp_path / "runs" / "run")
    assert json.loads(run.manifest.read_text())["ranks"] == 2
    ours, stock = load_embedder(run.checkpoint(6)), SentenceTransformer(str(run.checkpoint(6)), device="cpu")
    np.testing.assert_allclose(stock.encode(TEXTS), ours.encode(TEXTS), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["replicated", "fsdp2"])
def test_torchrun_trains_heads_as_one_process_does(kind: str, write_run: Write, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    done = _torchrun(write_run("two", HEADED, ranks=2), _environment(kind, tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "readout: causal, last token, end token, head 32 to 24 (tanh)" in done.stdout + done.stderr
    run_ranks(1, _train, write_run("one", HEADED), {}, False)
    two, one = (RunFolder(tmp_path / "runs" / name).checkpoint(6) for name in ("two", "one"))
    assert _distance(_all_weights(two), _all_weights(one)) < 2e-5
    ours, stock = load_embedder(two), SentenceTransformer(str(two), device="cpu")
    assert ours.dimension == 16
    np.testing.assert_allclose(stock.encode(TEXTS), ours.encode(TEXTS), atol=1e-5)


@pytest.mark.slow
def test_torchrun_with_another_number_of_ranks_is_refused(write_run: Write) -> None:
    done = _torchrun(write_run(ranks=3), {})
    assert done.returncode != 0
    assert "the launcher started 2 ranks, training.ranks is 3" in done.stderr + done.stdout
    assert "cli/train.py" not in done.stderr  # torchrun's own traceback, none of ours


@pytest.mark.slow
def test_a_rank_that_dies_under_torchrun_ends_the_job_and_what_was_saved_stays(
    write_run: Write, tmp_path: Path
) -> None:
    script = tmp_path / "dying.py"
    script.write_text(
        "import os, sys\n"
        "from reasoning_embedding.training import loop\n"
        "from reasoning_embedding.cli.main import main\n"
        "step, calls = loop.contrastive_step, iter(range(99))\n"
        "def dying(*arguments, **options):\n"
        "    if next(calls) == 4 and os.environ['RANK'] == '1':\n"
        "        os._exit(9)\n"
        "    return step(*arguments, **options)\n"
        "loop.contrastive_step = dying\n"
        "sys.argv = ['rembed', 'train', sys.argv[1]]\n"
        "main()\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(script), str(write_run())],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode != 0
    assert "rank 0 lost another of the 2 ranks" in done.stdout + done.stderr
    assert RunFolder(tmp_path / "runs" / "run").state_steps() == [0, 3]
