"""Representation and geometry: goldens, oracles and the invariance table."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.stats import ortho_group
from sklearn.neighbors import NearestNeighbors

from reasoning_embedding import hrsa
from reasoning_embedding.hrsa.metrics.layer import Layer, distinct
from reasoning_embedding.hrsa.metrics.nearest import (
    Screening,
    largest,
    nearest_cosines,
    products,
    screening_error,
)
from reasoning_embedding.hrsa.metrics.procrustes import split_rows

WIDTH = 32


def gaussian(n: int = 400, d: int = WIDTH, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randn(n, d)


@pytest.fixture(scope="module")
def golden() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(1337)
    x = random.randn(100, 10)
    return x, random.randn(100, 10) + x


def test_cka_goldens(golden):
    x, y = golden
    assert float(hrsa.linear_cka(x, y)) == pytest.approx(0.55761, abs=5e-6)
    assert float(hrsa.debiased_linear_cka(x, y)) == pytest.approx(0.51346, abs=5e-6)
    assert float(hrsa.rbf_cka(x, y, width=0.5)) == pytest.approx(0.65483, abs=5e-6)


def test_debiased_cka_equals_the_formula_over_gram_matrices(golden):
    x, y = golden
    n, ones = len(x), np.ones(len(x))

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        k, m = a @ a.T, b @ b.T
        np.fill_diagonal(k, 0)
        np.fill_diagonal(m, 0)
        total = np.trace(k @ m) + (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
        return (total - 2 / (n - 2) * (ones @ k @ m @ ones)) / (n * (n - 3))

    expected = hsic(x + 3, y) / np.sqrt(hsic(x + 3, x + 3) * hsic(y, y))
    assert float(hrsa.debiased_linear_cka(x + 3, y)) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("n", "d", "predicted"), [(100, 100, 0.500), (50, 500, 0.909)])
def test_cka_chance_level(n, d, predicted):
    random = np.random.RandomState(0)
    pairs = [(random.randn(n, d), random.randn(n, d)) for _ in range(20)]
    biased = [hrsa.linear_cka(x, y) for x, y in pairs]
    debiased = [float(hrsa.debiased_linear_cka(x, y)) for x, y in pairs]
    assert np.sqrt(d * d / ((n + d) ** 2)) == pytest.approx(predicted, abs=5e-4)
    assert np.mean([float(m) for m in biased]) == pytest.approx(predicted, abs=0.005)
    assert np.mean([m.chance for m in biased]) == pytest.approx(predicted, abs=0.003)
    assert abs(np.mean(debiased)) < 0.02


def test_cka_chance_is_the_exact_mean_over_permutations():
    # A steep spectrum, where the Gaussian formula is far off.
    x, y = gaussian(60, 8) * np.arange(1, 9) ** 2, gaussian(60, 8, seed=1) * np.arange(1, 9)
    null = hrsa.permutation_null(hrsa.linear_cka, x, y, permutations=400)
    assert hrsa.linear_cka(x, y).chance == pytest.approx(null.mean, abs=4 * null.sd / 20)


@pytest.mark.parametrize(
    ("d", "floor"),
    [
        *((16, 0.241), (96, 0.1576), (128, 0.1488), (384, 0.1222), (768, 0.1096), (1024, 0.1051)),
        *((1536, 0.0994), (2048, 0.0956), (4096, 0.0877)),
    ],
)
def test_h_inv_floor(d, floor):
    assert hrsa.h_inv_floor(d) == pytest.approx(floor, abs=6e-5 if d > 16 else 6e-4)


def test_h_inv_floor_is_what_random_rotations_give():
    x = gaussian(200, 64)
    found = [
        float(hrsa.orthogonal_procrustes(x, x @ ortho_group.rvs(64, random_state=seed))) for seed in range(8)
    ]
    assert np.mean(found) == pytest.approx(hrsa.h_inv_floor(64), abs=0.003)


def test_correlation_per_dimension_is_pearson_and_constant_dimensions_are_named(golden):
    x, y = (side.copy() for side in golden)
    x[:, 3] = 1e6
    found = hrsa.dimension_wise_correlation(x, y)
    expected = [np.corrcoef(x[:, j], y[:, j])[0, 1] for j in range(10) if j != 3]
    assert np.isnan(found.per_dimension[3])
    assert np.allclose(np.delete(found.per_dimension, 3), expected)
    assert found.value == pytest.approx(np.mean(expected))
    assert "1 of 10 dimensions are constant" in found.warnings[0]


def test_procrustes_map_is_scipys(golden):
    x, y = (side - side.mean(axis=0) for side in golden)
    rotation, _ = scipy.linalg.orthogonal_procrustes(x, y)
    found = hrsa.orthogonal_procrustes(*golden, heldout=0)
    assert np.allclose(found.map, rotation)
    assert found.residual == pytest.approx(np.sum((x @ rotation - y) ** 2) / np.sum(y**2))
    assert not found.warnings


def test_procrustes_scores_held_out_documents_and_warns_when_rows_are_few():
    x = gaussian(90, WIDTH)
    documents = np.repeat(np.arange(30), 3)
    found = hrsa.orthogonal_procrustes(x, gaussian(90, WIDTH, seed=1), documents=documents)
    assert len(found.heldout) == 18
    assert len(set(documents[found.heldout])) == 6
    assert not set(documents[found.heldout]) & set(np.delete(documents, found.heldout))
    assert "N >= 4 D" in found.warnings[0]
    # Unrelated rows: held out they are at chance, on the fitted rows they look better.
    assert found.residual == pytest.approx(found.residual_chance, rel=0.15)
    assert hrsa.orthogonal_procrustes(x, gaussian(90, WIDTH, seed=1), heldout=0).residual < 1.2


def test_split_rows_is_a_partition():
    fit, out = split_rows(100, 0.2, seed=1)
    assert len(out) == 20
    assert sorted([*fit, *out]) == list(range(100))


@pytest.mark.parametrize("k", [1, 5, 50])
def test_knn_overlap_equals_scikit_learn(golden, k):
    x, y = golden
    first, second = (
        NearestNeighbors(n_neighbors=k, metric="cosine").fit(side).kneighbors(return_distance=False)
        for side in (x, y)
    )
    shared = np.array([len(set(a) & set(b)) for a, b in zip(first, second, strict=True)])
    found = hrsa.knn_overlap(x, y, k=k)
    assert found.mutual == pytest.approx((shared / k).mean())
    assert found.value == pytest.approx((shared / (2 * k - shared)).mean())


def test_knn_chance_level():
    found = [hrsa.knn_overlap(gaussian(300, 20, seed), gaussian(300, 20, seed + 50)) for seed in range(10)]
    assert np.mean([f.mutual for f in found]) == pytest.approx(10 / 299, abs=0.003)
    assert np.mean([f.value for f in found]) == pytest.approx(found[0].chance, abs=0.003)
    assert found[0].mutual_chance == pytest.approx(10 / 299)


def test_knn_removes_rows_repeated_in_either_model():
    x, y = gaussian(60, 8), gaussian(60, 8, seed=1)
    x[10:20] = x[0] * (1 + 1e-7)  # equal up to rounding
    y[30:35] = y[1]
    found = hrsa.knn_overlap(x, y, k=5)
    assert found.n == 45
    assert found.rows.tolist() == [*range(10), *range(20, 30), *range(35, 60)]
    assert "15 of 60 rows are duplicates" in found.warnings[0]
    assert found.value == hrsa.knn_overlap(x[found.rows], y[found.rows], k=5).value


def test_distinct_keeps_rows_that_differ_in_one_coordinate():
    x = np.ones((6, 4))
    x[1, 2] += 1e-3
    x[4, 0] += 1e-3
    assert distinct(x).tolist() == [0, 1, 4]


def test_neighbours_beyond_the_first_block_leave_the_row_itself_out():
    x = gaussian(90, 6)
    found, cosines = nearest_cosines(x, 4)
    assert (found != np.arange(90)[:, None]).all()
    for at_once in (0, 2048):  # a block at a time, or half of all cosines at once
        again, near = nearest_cosines(x, 4, block=32, at_once=at_once)
        assert np.array_equal(again, found)
        assert near == pytest.approx(cosines, abs=1e-14)


def _nearest_sets(rows: np.ndarray, k: int) -> np.ndarray:
    """Sets by brute force in float64, pair by pair in one way; of equal cosines the lower index."""
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    cosines = np.stack([np.einsum("d,nd->n", row, unit) for row in unit])
    np.fill_diagonal(cosines, -np.inf)
    return np.sort(np.argsort(-cosines, axis=1, kind="stable")[:, :k], axis=1)


def _planted(kind: str) -> np.ndarray:
    random = np.random.default_rng(0)
    x = random.standard_normal((300, 24)).astype(np.float32)
    if kind == "rays":  # thirty rows of one direction each, and one half of its length: cosines tie exactly
        x[150:] = x[:150] * np.float32(0.5)
    if kind == "signs":  # whole numbers: most cosines tie
        x = np.sign(x[:, :16])
    if kind == "huge coordinate":  # cosines differ in the seventh digit only
        x[:, 0] += 3000
    if kind == "long":  # a row of one place, one unit in the last place of float32 apart
        x[150:] = np.nextafter(x[:150], np.float32(np.inf))
    return x


@pytest.mark.parametrize("kind", ["plain", "rays", "signs", "huge coordinate", "long"])
def test_screened_neighbours_are_those_of_float64(kind):
    x = _planted(kind)
    screening = Screening(x, 20)
    for k in (1, 3, 10, 20):
        found, _ = screening.nearest(k)
        assert np.array_equal(np.sort(found, axis=1), _nearest_sets(x, k))
        again = nearest_cosines(x, k)[1]
        assert np.sort(screening.cosines(k), axis=1)[:, ::-1] == pytest.approx(again, abs=1e-14)


def test_float32_alone_gets_some_neighbours_wrong():
    """The control: what the screening would find without its float64."""
    x = _planted("huge coordinate")
    screening = Screening(x, 10)
    alone = np.sort(screening.places[:, :10], axis=1)
    assert (alone != _nearest_sets(x, 10)).any(axis=1).mean() > 0.5
    screening.margin = 0.0
    assert (np.sort(screening.nearest(10)[0], axis=1) != _nearest_sets(x, 10)).any()


def test_ties_at_the_border_are_counted_by_the_screening_as_by_the_sorted_neighbours():
    x, rows = _planted("signs"), np.arange(300)
    sorted_, screened = Layer(x), Layer(x)
    sorted_.neighbours(rows, 11)
    for k in (3, 10):
        assert np.array_equal(sorted_.nearest(rows, k)[1], screened.nearest(rows, k)[1])
    assert screened.nearest(rows, 10)[1].sum() > 100


@pytest.mark.parametrize("width", [3, 64, 700])
def test_a_product_in_float32_is_no_farther_off_than_the_bound(width):
    unit = np.random.default_rng(0).standard_normal((200, width))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    error = np.abs(products(unit.astype(np.float32)) - unit @ unit.T).max()
    assert 0 < error < screening_error(width)


def test_the_largest_of_groups_are_the_largest_of_all():
    x = np.random.default_rng(0).standard_normal((40, 523))
    x[:20] = np.round(x[:20])  # equal values
    for k in (17, 30):
        values = np.sort(x, axis=1)[:, : -k - 1 : -1]
        places, found = largest(x, k)
        assert np.array_equal(found, values)
        assert np.array_equal(np.take_along_axis(x, places, axis=1), values)
        assert all(len(set(row)) == k for row in places.tolist())


def test_a_symmetric_product_is_the_whole_one():
    x = np.random.default_rng(0).standard_normal((70, 9))
    for strip in (1, 16, 70, 100):
        assert products(x, strip) == pytest.approx(x @ x.T, abs=1e-13)


def test_knn_mean_offset_matters_only_when_not_centred():
    x = gaussian()
    assert hrsa.knn_overlap(x, x + 5).value < 0.6
    assert hrsa.knn_overlap(x, x + 5, centred=True).value == 1


def test_neighbours_are_computed_once_and_cut_for_smaller_k():
    layer, rows = Layer(gaussian()), np.arange(0, 400, 2)
    far, near = layer.neighbours(rows, 50)[0], layer.neighbours(rows, 5)[0]
    assert np.array_equal(near, far[:, :5])
    assert np.shares_memory(near, far)


def test_tensors_of_any_float_type(golden):
    x, y = (torch.tensor(side) for side in golden)
    assert float(hrsa.linear_cka(x, y)) == pytest.approx(0.55761, abs=5e-6)
    assert float(hrsa.linear_cka(x.bfloat16().requires_grad_(), y.float())) == pytest.approx(0.5576, abs=2e-3)


def test_float32_with_a_large_mean_keeps_its_digits(golden):
    x, y = golden
    shifted = (x + 300).astype(np.float32)
    assert float(hrsa.linear_cka(shifted, y)) == pytest.approx(0.55761, abs=1e-4)


def test_results_carry_n_definition_and_chance(golden):
    for metric in (hrsa.linear_cka(*golden), hrsa.knn_overlap(*golden), hrsa.orthogonal_procrustes(*golden)):
        assert metric.n > 0
        assert len(metric.definition) > 20
        assert metric.chance is not None
        assert 0 < metric.chance < 1
        with pytest.raises(FrozenInstanceError):
            setattr(metric, "value", 0.0)  # noqa: B010
