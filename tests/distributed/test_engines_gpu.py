"""The engines on a GPU, in a world of one: kernels, offload and bf16; more ranks need more GPUs."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from reasoning_embedding.config import EngineSettings
from reasoning_embedding.distributed import World
from reasoning_embedding.training import contrastive_step
from tests.distributed.engine_cases import LOSS, build, gradient
from tests.factories import random_batch
from tests.models import relative, tiny_embedder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    os.environ["LOCAL_RANK"] = "0"
    rendezvous = f"file://{tmp_path}/rendezvous"
    dist.init_process_group("cpu:gloo,cuda:nccl", init_method=rendezvous, rank=0, world_size=1)
    yield World(0, 1, torch.device("cuda", 0))
    dist.destroy_process_group()


def _step(
    kind: str, world: World, autocast: torch.dtype | None = None, **options: Any
) -> tuple[float, Any, float]:
    embedder = tiny_embedder().to(world.device)
    engine = build(kind, embedder, world, **options)
    output = contrastive_step(
        embedder, random_batch(7), LOSS, world, pack_tokens=64, autocast=autocast, engine=engine
    )
    found = gradient(engine, kind).float().cpu()
    return output.loss, found, engine.update(1e-3)


@pytest.mark.parametrize("kind", ["fsdp2", "zero2", "zero3"])
def test_engines_on_a_gpu_give_the_gradient_of_a_cpu(kind: str, world: World) -> None:
    if kind.startswith("zero"):
        pytest.importorskip("deepspeed")
    loss, wanted, norm = _step("replicated", World())
    found_loss, found, found_norm = _step(kind, world)
    assert found_loss == pytest.approx(loss, rel=1e-4)
    assert relative(found, wanted) < 1e-3
    assert found_norm == pytest.approx(norm, rel=1e-3)


def test_fsdp2_offloads_and_computes_in_bf16(world: World) -> None:
    loss, _, _ = _step("replicated", World())
    on_host = EngineSettings("fsdp2", optimizer_on_host=True, weights_on_host=True)
    found, _, _ = _step("fsdp2", world, torch.bfloat16, settings=on_host, compute=torch.bfloat16)
    assert found == pytest.approx(loss, rel=3e-2)
