"""Learning rates and parameter groups."""

from __future__ import annotations

import math

import pytest

from reasoning_embedding import config
from reasoning_embedding.training.optimizers import build_optimizer, learning_rate_at
from tests.models import tiny_embedder


def test_the_papers_schedule() -> None:
    training = config.Training()  # 2e-5, warm-up 0.03, cosine
    rates = [learning_rate_at(step, 782, training) for step in range(1, 783)]
    warmup = math.ceil(0.03 * 782)
    assert warmup == 24
    assert rates[0] == pytest.approx(2e-5 / 24)
    assert rates[warmup - 1] == max(rates) == 2e-5
    assert rates[warmup + (782 - warmup) // 2 - 1] == pytest.approx(1e-5)
    assert rates[-1] == pytest.approx(0, abs=1e-20)
    assert all(a >= b for a, b in zip(rates[warmup:], rates[warmup + 1 :], strict=False))


@pytest.mark.parametrize(("schedule", "middle", "last"), [("linear", 0.55, 0.1), ("constant", 1.0, 1.0)])
def test_other_schedules(schedule: str, middle: float, last: float) -> None:
    training = config.Training(schedule=schedule, learning_rate=1.0, warmup_ratio=0, final_learning_rate=0.1)
    assert learning_rate_at(50, 100, training) == pytest.approx(middle)
    assert learning_rate_at(100, 100, training) == pytest.approx(last)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_vectors_are_not_decayed(kind: str) -> None:
    embedder = tiny_embedder()
    training = config.Training.model_validate({"optimizer": {"kind": kind}})
    groups = build_optimizer(embedder, training).param_groups
    for group in groups:
        assert all(group["weight_decay"] == (0.05 if p.ndim == 2 else 0) for p in group["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(embedder.parameters()))
