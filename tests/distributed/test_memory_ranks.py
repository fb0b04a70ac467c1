"""Choosing a memory mode on every engine: equal on all ranks, and without a trace in the gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.distributed import World
from reasoning_embedding.distributed.harness import run_ranks
from reasoning_embedding.training import memory_mode as memory
from reasoning_embedding.training.memory_mode import MemoryMode, choose_memory_mode
from tests.distributed.engine_cases import ENGINES, TOLERANCE, Case, build, gradient, wanted
from tests.models import exact_norms, relative


def _planned_step(world: World, kind: str) -> tuple[MemoryMode, float, torch.Tensor]:
    case = Case()
    training: Any = config.Training(pack_tokens=case.pack_tokens)
    memory.device_memory = lambda world: ((1 << 40) - (1 << 30) * world.rank, 0)  # type: ignore[assignment]
    with exact_norms():
        engine = build(kind, case.embedder(), world)
        plan = choose_memory_mode(training, engine, [case.batch()], None)
        output = case.step(engine, plan.store_tokens)
        return plan, output.loss, gradient(engine, kind)


@pytest.mark.parametrize(
    "kind", ["replicated", "fsdp2", *(pytest.param(k, marks=pytest.mark.slow) for k in ENGINES[2:])]
)
def test_a_probe_leaves_no_trace(kind: str) -> None:
    loss, expected = wanted(Case())
    (first, *_), (second, *_) = found = run_ranks(2, _planned_step, kind)
    assert first == second, "ranks agree, whatever each has free"
    assert first.mode == "store"
    for _, found_loss, found_gradient in found:
        assert found_loss == pytest.approx(loss, rel=TOLERANCE[kind])
        assert relative(found_gradient, expected) < TOLERANCE[kind]
