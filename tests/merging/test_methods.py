"""Methods of merging, tensor by tensor: identities, formulas in float64, schedules of t, the report's geometry."""

from __future__ import annotations

import math

import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.errors import InputError
from reasoning_embedding.merging.distances import LERP_CHANGE, fell_back, summary, tensor_record
from reasoning_embedding.merging.tensor_merge import TensorMerge, at, soup_weights

NAMES = [
    "embed_tokens.weight",
    *(f"layers.{i}.{part}" for i in range(3) for part in ("self_attn.q", "mlp.up")),
    "norm",
]
A, B, C = (torch.randn(6, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(3))


def merged(method, *tensors, name="norm"):
    count = len(tensors) - hasattr(method, "base")
    return TensorMerge(method, count, 3, NAMES).merge(name, tensors)


def slerp(t):
    return config.Slerp(kind="slerp", t=t)


def linear(weights):
    return config.Linear(kind="linear", weights=weights)


def slerp_float64(a, b, t):
    """The formula, for tensors that are not parallel."""
    a, b = a.double(), b.double()
    angle = torch.acos((a * b).sum() / (a.norm() * b.norm()))
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


# --- SLERP and soups -----------------------------------------------------------------------------------------


def test_slerp_begins_and_ends_at_its_models():
    assert torch.equal(merged(slerp(0.0), A, B), A)
    assert torch.equal(merged(slerp(1.0), A, B), B)
    torch.testing.assert_close(merged(slerp(0.3), A, B), merged(slerp(0.7), B, A))


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_slerp_is_its_formula_and_no_soup(t):
    found = merged(slerp(t), A, B)
    torch.testing.assert_close(found.double(), slerp_float64(A, B, t), rtol=1e-5, atol=1e-6)
    assert (found - merged(linear([1 - t, t]), A, B)).norm() > 0.01 * found.norm()
    double = merged(slerp(t), A.double(), B.double())
    torch.testing.assert_close(double, slerp_float64(A, B, t), rtol=1e-12, atol=1e-13)


def test_slerp_keeps_a_common_norm_and_a_soup_loses_it():
    b = B * (A.norm() / B.norm())
    assert merged(slerp(0.4), A, b).norm() == pytest.approx(float(A.norm()), rel=1e-5)
    assert merged(linear([0.6, 0.4]), A, b).norm() < 0.95 * A.norm()


def test_slerp_of_parallel_tensors_is_a_soup_and_of_opposite_ones_meets_at_zero():
    near = A + 0.001 * B
    torch.testing.assert_close(merged(slerp(0.3), A, near), merged(linear([0.7, 0.3]), A, near))
    torch.testing.assert_close(merged(slerp(0.5), A, -A), torch.zeros_like(A))
    torch.testing.assert_close(merged(slerp(0.25), A, 3 * A), 1.5 * A)


def test_scalars_and_half_precision_keep_shape_and_dtype():
    one, three = torch.tensor(1.0), torch.tensor(3.0)
    assert merged(slerp(0.5), one, three) == 2
    half = merged(slerp(0.5), A.bfloat16(), B.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(
        half, merged(slerp(0.5), A.bfloat16().float(), B.bfloat16().float()).bfloat16()
    )


def test_integers_are_copied_where_they_agree_and_refused_where_not():
    ids = torch.arange(4)
    assert torch.equal(merged(slerp(0.5), ids, ids.clone()), ids)
    with pytest.raises(InputError, match="norm holds integers that differ"):
        merged(slerp(0.5), ids, ids + 1)


def test_weights_of_soups():
    method = config.Linear(kind="linear", weights="ema", decay=0.8)
    average = A
    for model in (B, C):
        average = 0.8 * average + 0.2 * model
    torch.testing.assert_close(merged(method, A, B, C), average)
    assert soup_weights(linear("uniform"), 3) == [1, 1, 1]
    assert soup_weights(linear("linear"), 3) == [1, 2, 3]
    torch.testing.assert_close(merged(linear("linear"), A, B, C), (A + 2 * B + 3 * C) / 6)
    torch.testing.assert_close(merged(linear([1.0, 0.0]), A, B), A, rtol=0, atol=0)


def test_a_path_of_a_soup_is_linear_interpolation():
    torch.testing.assert_close(merged(at(linear("uniform"), 0.3), A, B), 0.7 * A + 0.3 * B)
    assert at(slerp(0.5), 0.25).t == 0.25


# --- task vectors, model stock, Karcher ------------------------------------------------------------------------


def test_task_arithmetic_is_its_formula():
    method = config.TaskArithmetic(kind="task-arithmetic", base="x", weights=[1.0, 0.5], scale=0.7)
    torch.testing.assert_close(merged(method, A, B, C), A + 0.7 * ((B - A) + 0.5 * (C - A)))
    one = config.TaskArithmetic(kind="task-arithmetic", base="x", scale=0.25)
    torch.testing.assert_close(merged(one, A, B), A + 0.25 * (B - A))


def test_ties_trims_elects_and_averages():
    method = config.Ties(kind="ties", base="x", density=0.5, weights=[1.0, 2.0])
    deltas = []
    for model in (B, C):
        delta = (model - A).reshape(-1)
        kept = delta.abs().argsort(descending=True)[: delta.numel() // 2]
        deltas.append(torch.zeros_like(delta).index_put((kept,), delta[kept]))
    weights = torch.tensor([1.0, 2.0])[:, None]
    moved = torch.stack(deltas) * weights
    sign = torch.where(moved.sum(0) >= 0, 1.0, -1.0)
    agrees = (moved.sign() == sign).float()
    divisor = (weights * agrees).sum(0)
    mean = (moved * agrees).sum(0) / torch.where(divisor == 0, 1.0, divisor)
    torch.testing.assert_close(merged(method, A, B, C), A + mean.reshape(A.shape))


def test_dare_draws_by_seed_and_tensor_only():
    def dare(**settings):
        return config.Dare(kind="dare", base="x", **settings)

    state = torch.random.get_rng_state()
    first = merged(dare(seed=1), A, B, C)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, merged(dare(seed=1), A, B, C))
    assert not torch.equal(first, merged(dare(seed=2), A, B, C))
    assert not torch.equal(first, merged(dare(seed=1), A, B, C, name="layers.0.mlp.up"))
    arithmetic = config.TaskArithmetic(kind="task-arithmetic", base="x")
    torch.testing.assert_close(merged(dare(density=1.0), A, B, C), merged(arithmetic, A, B, C))
    moved = (merged(dare(density=0.3), A, B) - A).abs() > 1e-6
    assert 0 < moved.sum() < 0.7 * A.numel()
    assert not torch.equal(
        merged(dare(density=0.5, signs="elect"), A, B, C), merged(dare(density=0.5), A, B, C)
    )


def test_model_stock_follows_the_angle():
    found = merged(config.ModelStock(kind="model-stock", base="x"), A, B, C)
    cosine = torch.nn.functional.cosine_similarity((B - A).reshape(-1), (C - A).reshape(-1), dim=0)
    t = 2 * cosine / (1 + cosine)
    torch.testing.assert_close(found, t * (B + C) / 2 + (1 - t) * A)
    assert not torch.allclose(
        found, merged(config.ModelStock(kind="model-stock", base="x", rows=True), A, B, C)
    )


def test_karcher_of_two_is_slerp_halfway():
    b = B * (A.norm() / B.norm())
    method = config.Karcher(kind="karcher", iterations=50, tolerance=1e-7)
    torch.testing.assert_close(merged(method, A, b), merged(slerp(0.5), A, b), rtol=1e-4, atol=1e-5)
    assert merged(method, A, b, C).shape == A.shape


# --- t by layer and by filter ----------------------------------------------------------------------------------


def places(t):
    recipe = TensorMerge(slerp(t), 2, 3, NAMES)
    return {name: recipe.parameters(name)["t"] for name in NAMES}


def test_a_gradient_runs_over_the_layers_and_the_rest_takes_its_first_number():
    assert places([0.2, 1.0]) == pytest.approx(
        {
            "embed_tokens.weight": 0.2,
            "norm": 0.2,
            **{f"layers.{i}.{part}": 0.2 + 0.4 * i for i in range(3) for part in ("self_attn.q", "mlp.up")},
        }
    )


def test_the_first_filter_that_fits_counts():
    values = [
        config.TensorValue(filter="self_attn", value=[0.0, 1.0]),
        config.TensorValue(filter="layers.1", value=0.9),
        config.TensorValue(value=0.5),
    ]
    found = places(values)
    assert [found[f"layers.{i}.self_attn.q"] for i in range(3)] == [0, 0.5, 1]
    assert (found["layers.1.mlp.up"], found["layers.0.mlp.up"], found["norm"]) == (0.9, 0.5, 0.5)


def test_a_filter_that_fits_nothing_is_refused():
    values = [config.TensorValue(filter="self_atn", value=0.1), config.TensorValue(value=0.5)]
    with pytest.raises(InputError, match="'self_atn' fits no tensor; did you mean 'self_attn'"):
        places(values)


def test_weights_are_counted_where_a_trajectory_was_longer_than_thought():
    with pytest.raises(InputError, match="2 weights for 3 models"):
        TensorMerge(linear([1.0, 2.0]), 3, 3, NAMES)


# --- the report ------------------------------------------------------------------------------------------------


def rotated(angle):
    """B's part orthogonal to A, added so that the two keep one norm and stand at an angle (radians)."""
    away = B - (A * B).sum() / (A * A).sum() * A
    return math.cos(angle) * A + math.sin(angle) * away * (A.norm() / away.norm())


def test_norms_angle_and_orthogonal_change():
    record = tensor_record("x", [A, 2 * rotated(0.5)], C)
    assert record["norms"] == pytest.approx([float(A.norm()), 2 * float(A.norm())])
    assert record["norm_merged"] == pytest.approx(float(C.norm()))
    assert record["cosine"] == pytest.approx([math.cos(0.5)])
    assert record["angle"] == pytest.approx([math.degrees(0.5)])
    assert record["orthogonal_change"] == pytest.approx([2 * math.sin(0.5)])
    assert (record["parameters"], record["shape"]) == (30, [6, 5])


def test_a_zero_tensor_has_no_angle():
    record = tensor_record("x", [A, torch.zeros_like(A)], A)
    assert record["cosine"] == record["angle"] == record["orthogonal_change"] == [None]
    assert not fell_back(record)


@pytest.mark.parametrize(("angle", "falls"), [(0.031, True), (0.0325, False)])
def test_below_3_2_percent_slerp_is_lerp(angle, falls):
    b = rotated(angle)
    record = tensor_record("x", [A, b], A)
    assert fell_back(record) == falls == (record["orthogonal_change"][0] < LERP_CHANGE)
    same = torch.equal(merged(slerp(0.3), A, b), 0.7 * A + 0.3 * b)
    near = (merged(slerp(0.3), A.double(), b.double()) - (0.7 * A.double() + 0.3 * b.double())).abs().max()
    assert same or not falls
    assert (near < 1e-12) == falls


def test_the_share_that_fell_back_counts_tensors_and_parameters():
    small = {**tensor_record("s", [A[:1], A[:1]], A[:1]), "lerp": True}
    large = {**tensor_record("l", [A, B], A), "lerp": False}
    found = summary([small, large])
    assert (found["lerp_tensors"], found["lerp_parameters"]) == (0.5, 5 / 35)
    assert found["cosine_least"] == large["cosine"][0]
    soup = summary([tensor_record("l", [A, B], A)])
    assert soup["lerp_tensors"] is soup["lerp_parameters"] is None


def test_large_tensors_are_summed_in_pieces(monkeypatch):
    from reasoning_embedding.checkpoints import tensors
    from reasoning_embedding.merging import distances as geometry

    whole = tensor_record("x", [A, B], C)
    monkeypatch.setattr(geometry, "pieces", lambda parts: tensors.pieces(parts, elements=7))
    pieces = tensor_record("x", [A, B], C)
    for key in ("norms", "cosine", "orthogonal_change"):
        assert pieces[key] == pytest.approx(whole[key], rel=1e-12)
