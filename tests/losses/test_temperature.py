"""A learnt temperature: its gradient, its steps, its range, and going on from a saved state."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.losses import ContrastiveLoss, Temperature, build_loss
from tests.losses.loss_reference import objective, random_slots, unit_vectors

LEARNT = {"temperature": 0.1, "learn_temperature": {"learning_rate_factor": 1.0}}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"directions": ["query_document", "query_query"], "mask_same_text": True},
        {"directions": ["query_document", "document_query"], "softmax": "per_direction"},
        {"false_negatives": {"margin": 0.05}},
        {"matryoshka": [4], "matryoshka_weights": [0.3]},
        {"uniformity": {"weight": 1.0}},
    ],
)
def test_the_gradient_is_that_of_the_formula(more: dict[str, Any]) -> None:
    settings = config.InfoNCE.model_validate({**LEARNT, **more})
    batch = random_slots(0)
    x = unit_vectors(len(batch.texts), 8, 0)
    log_temperature = torch.tensor(math.log(0.1), dtype=torch.float64, requires_grad=True)
    objective(x, batch, settings, temperature=log_temperature.exp()).backward()
    loss = build_loss(settings)
    sums = [loss.compute(x, batch, rank=rank, ranks=3)[1] for rank in range(3)]
    found = sum(float(one["temperature_gradient"]) for one in sums)
    assert found == pytest.approx(float(log_temperature.grad), rel=1e-11)
    assert abs(found) > 1e-3


def test_it_moves_as_adam_moves_it() -> None:
    temperature = Temperature(0.1, config.LearntTemperature(learning_rate_factor=2.0))
    parameter = torch.nn.Parameter(torch.tensor(math.log(0.1), dtype=torch.float64))
    adam = torch.optim.Adam([parameter], lr=2e-3)
    for gradient in (0.5, -0.2, 1.5):
        temperature.update(gradient, 1e-3)
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        adam.step()
    assert temperature.value == pytest.approx(parameter.exp().item(), rel=1e-14)
    assert temperature.value < 0.1


@pytest.mark.parametrize(("gradient", "end"), [(1.0, 0.05), (-1.0, 0.2)])
def test_it_stays_in_its_range(gradient: float, end: float) -> None:
    temperature = Temperature(0.1, config.LearntTemperature(minimum=0.05, maximum=0.2))
    for _ in range(20):
        temperature.update(gradient, 0.01)
    assert temperature.value == pytest.approx(end, rel=1e-14)


def test_a_fixed_one_stays() -> None:
    temperature = Temperature(0.02)
    temperature.update(5.0, 1.0)
    assert (temperature.value, temperature.state()) == (0.02, {})


def _run(loss: ContrastiveLoss, steps: range) -> list[float]:
    values = []
    for step in steps:
        batch = random_slots(step)
        _, sums = loss.compute(unit_vectors(len(batch.texts), 8, step), batch)
        values.append(loss.finish({name: float(value) for name, value in sums.items()})["temperature"])
        loss.update(0.01)
    return values


def test_a_saved_state_goes_on_bitwise() -> None:
    settings = config.InfoNCE.model_validate(LEARNT)
    whole = build_loss(settings)
    expected = _run(whole, range(8))
    first, second = build_loss(settings), build_loss(settings)
    begun = _run(first, range(3))
    second.restore(json.loads(json.dumps(first.state())))
    assert begun + _run(second, range(3, 8)) == expected
    assert second.state() == whole.state()

    forgetful = build_loss(settings)  # the control: moments matter
    forgetful.restore({"log_temperature": first.state()["log_temperature"]})
    assert _run(forgetful, range(3, 8)) != expected[3:]
