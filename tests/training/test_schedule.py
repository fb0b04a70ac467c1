"""Learning rates and parameter groups."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

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
    assert rates[warmup] == 2e-5
    assert rates[warmup + (782 - warmup) // 2] == pytest.approx(1e-5)
    assert 0 < rates[-1] < 1e-10
    assert all(a >= b for a, b in zip(rates[warmup:], rates[warmup + 1 :], strict=False))


@pytest.mark.parametrize(("schedule", "middle", "last"), [("linear", 0.55, 0.1), ("constant", 1.0, 1.0)])
def test_other_schedules(schedule: str, middle: float, last: float) -> None:
    training = config.Training(schedule=schedule, learning_rate=1.0, warmup_ratio=0, final_learning_rate=0.1)
    assert learning_rate_at(50, 100, training) == pytest.approx(middle)
    assert learning_rate_at(100, 100, training) == pytest.approx(last)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (2, 0.5), (7, 0.3), (50, 0)])
def test_the_last_step_teaches_as_torchs_schedulers_have_it(schedule: str, steps: int, warmup: float) -> None:
    training = config.Training.model_validate(
        {"schedule": schedule, "learning_rate": 1.0, "warmup_ratio": warmup}
    )
    assert learning_rate_at(steps, steps, training) > 0
    # What came before: the end is reached with the last step.
    assert learning_rate_at(50, 50, training.model_copy(update={"final_learning_rate": 0.0})) < 1e-15
    if warmup == 0:
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        makers = {
            "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
            "linear": lambda: torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-300, steps),
        }
        scheduler = makers[schedule]()
        for step in range(1, steps + 1):
            assert learning_rate_at(step, steps, training) == pytest.approx(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()


def test_a_restart_begins_the_schedule_again_and_leaves_what_was_before_it() -> None:
    short = config.Training.model_validate({"steps": 20, "warmup_ratio": 0.2})
    longer = config.Training.model_validate({"steps": 50, "warmup_ratio": 0.2, "restarts": [20]})
    first = [learning_rate_at(step, 20, short) for step in range(1, 21)]
    rates = [learning_rate_at(step, 50, longer) for step in range(1, 51)]
    assert rates[:20] == first
    assert rates[20:] == [learning_rate_at(step, 30, short) for step in range(1, 31)]
    plain = short.model_copy(update={"steps": 50})
    assert [learning_rate_at(step, 50, plain) for step in range(1, 21)] != first
    for restarts, said in (([20, 10], "rise"), ([50], "before the last of 50")):
        with pytest.raises(ValidationError, match=said):
            config.Training.model_validate({"steps": 50, "restarts": restarts})


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_vectors_are_not_decayed(kind: str) -> None:
    embedder = tiny_embedder()
    training = config.Training.model_validate({"optimizer": {"kind": kind}})
    groups = build_optimizer(embedder, training).param_groups
    for group in groups:
        assert all(group["weight_decay"] == (0.05 if p.ndim == 2 else 0) for p in group["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(embedder.parameters()))
