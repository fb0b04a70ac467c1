"""What the regularisers measure, on embeddings whose geometry is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa import debiased_linear_cka, linear_cka
from reasoning_embedding.losses import anchor_distance, sigreg, uniformity
from reasoning_embedding.losses.regularisers import _hsic
from reasoning_embedding.training.activation_memory import LiveBytes
from tests.losses.loss_reference import unit_vectors


def _sphere(rows: int, dimension: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dimension, generator=generator, dtype=torch.float64), dim=1)


def _uniformity(x: Tensor, **options: float) -> float:
    settings = {"t": 2.0, "tile_rows": 100, **options}
    return float(uniformity(x, torch.arange(len(x)), gradient=torch.zeros_like(x), **settings))


def _sigreg(x: Tensor, seed: int = 0) -> float:
    return float(sigreg(x, directions=64, seed=seed, gradient=torch.zeros_like(x)))


def test_uniformity_knows_even_from_crowded() -> None:
    assert _uniformity(_sphere(1, 8).expand(5, 8)) == pytest.approx(0)
    # |x - y|^2 of two random points of a large sphere is close to 2.
    assert _uniformity(_sphere(300, 512)) == pytest.approx(-4, abs=0.02)
    assert _uniformity(_sphere(1, 8)) == 0
    assert _uniformity(unit_vectors(40, 8, 0)) > _uniformity(_sphere(40, 8))


def test_uniformity_of_two_points_by_hand() -> None:
    x = torch.eye(2, dtype=torch.float64)
    gradient = torch.zeros_like(x)
    assert float(uniformity(x, torch.arange(2), t=3.0, tile_rows=1, gradient=gradient)) == pytest.approx(-6)
    torch.testing.assert_close(gradient, torch.tensor([[-6.0, 6.0], [6.0, -6.0]], dtype=torch.float64))


def test_uniformity_holds_one_tile() -> None:
    x, tile = _sphere(1024, 4).float(), 64 * 1024 * 4
    gradient = torch.zeros_like(x)
    with LiveBytes() as live:
        uniformity(x, torch.arange(1024), t=2.0, tile_rows=64, gradient=gradient)
    assert tile < live.peak < 1.5 * tile


def test_sigreg_is_the_statistic_of_the_gaussian_under_which_it_is_small() -> None:
    # Under the null n |empirical - normal|^2 has mean 1 - exp(-t^2) at t.
    t = torch.linspace(-5, 5, 17, dtype=torch.float64)
    normal = torch.exp(-t.square() / 2)
    expected = torch.trapezoid((1 - normal.square()) * normal, t).item()
    even = [_sigreg(_sphere(400, 256, seed), seed) for seed in range(12)]
    assert sum(even) / 12 == pytest.approx(expected, rel=0.1)
    assert _sigreg(unit_vectors(400, 256, 0)) > 3 * expected
    assert _sigreg(_sphere(1, 256).expand(400, 256)) > 50 * expected


def test_sigreg_directions_follow_the_seed() -> None:
    x = _sphere(50, 16)
    assert _sigreg(x, 1) == _sigreg(x, 1) != _sigreg(x, 2)


def test_descent_makes_a_crowd_gaussian() -> None:
    x = unit_vectors(200, 16, 0)
    first = _sigreg(x)
    for seed in range(60):
        gradient = torch.zeros_like(x)
        sigreg(x, directions=32, seed=seed, gradient=gradient)
        x = F.normalize(x - 0.05 * gradient, dim=1)
    assert _sigreg(x, 1000) < first / 10


@pytest.mark.parametrize("debiased", [False, True])
def test_the_anchor_is_one_minus_the_cka_of_the_analysis(debiased: bool) -> None:
    x, y = unit_vectors(40, 8, 0), unit_vectors(40, 12, 1)
    y[:, :8] += x
    found = float(anchor_distance(x, y, debiased=debiased, gradient=torch.zeros_like(x)))
    measure = debiased_linear_cka if debiased else linear_cka
    assert found == pytest.approx(1 - measure(x.numpy(), y.numpy()).value, rel=1e-10)


@pytest.mark.parametrize(("debiased", "fewest"), [(False, 2), (True, 4)])
def test_the_anchor_is_a_number_from_the_fewest_texts_on(debiased: bool, fewest: int) -> None:
    for dtype in (torch.float32, torch.float64):
        x, y = (unit_vectors(fewest, 8, seed).to(dtype) for seed in (0, 1))
        gradient = torch.zeros_like(x)
        assert math.isfinite(anchor_distance(x, y, debiased=debiased, gradient=gradient))
        assert gradient.isfinite().all()
        with pytest.raises(InputError, match=f"has {fewest - 1} distinct texts?, .* from {fewest} on"):
            anchor_distance(x[1:], y[1:], debiased=debiased, gradient=gradient[1:])


def test_the_fewest_texts_are_those_of_the_estimator() -> None:
    """Centred as the unbiased estimate centres it, the Gram matrix of three texts is 0 and CKA 0 / 0."""
    for texts, zero in ((3, True), (4, False)):
        x = unit_vectors(texts, 8, 0)
        x = x - x.mean(dim=0)
        assert math.isclose(float(_hsic(x, x, debiased=True)), 0, abs_tol=1e-14) is zero


def test_the_anchor_ignores_rotation_and_scale() -> None:
    x = unit_vectors(40, 8, 0)
    rotation = torch.linalg.qr(_sphere(8, 8))[0]
    gradient = torch.zeros_like(x)
    found = float(anchor_distance(3 * x @ rotation, x, debiased=False, gradient=gradient))
    assert math.isclose(found, 0, abs_tol=1e-12)
    assert gradient.norm() < 1e-10
