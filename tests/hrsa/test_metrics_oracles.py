"""CKNNA, GULP, shape distance, permutation match and isotropy against textbook transcriptions."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import scipy.spatial
from scipy.stats import ortho_group
from sklearn.metrics.pairwise import cosine_similarity

from reasoning_embedding import hrsa
from reasoning_embedding.hrsa.metrics.cka import debiased_cka_of
from reasoning_embedding.hrsa.metrics.distances import nuclear_norm
from reasoning_embedding.hrsa.metrics.layer import Layer
from reasoning_embedding.hrsa.metrics.procrustes import inverse_entropy
from reasoning_embedding.hrsa.moments import RowMoments


def pair(n: int = 60, d: int = 8, e: int | None = None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    x = random.randn(n, d) + 0.5
    return x, x @ random.randn(d, e or d) + random.randn(n, e or d)


def dense_cknna(x: np.ndarray, y: np.ndarray, k: int, unbiased: bool) -> float:
    """The definition with n x n matrices, row by row."""
    n = len(x)
    kernels = [cosine_similarity(side) for side in (x, y)]

    def mask(kernel: np.ndarray) -> np.ndarray:
        kernel = kernel.copy()
        if unbiased:
            np.fill_diagonal(kernel, -np.inf)
        found = np.zeros((n, n))
        for i in range(n):
            found[i, np.argsort(-kernel[i])[:k]] = 1
        return found

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        if not unbiased:
            h = np.eye(n) - 1 / n
            return float(np.trace(a @ h @ b @ h))
        a, b = a - np.diag(np.diag(a)), b - np.diag(np.diag(b))
        total = (a * b.T).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * (a @ b).sum() / (n - 2)
        return float(total) / (n * (n - 3))

    def similarity(i: int, j: int) -> float:
        both = mask(kernels[i]) * mask(kernels[j])
        return hsic(both * kernels[i], both * kernels[j])

    return similarity(0, 1) / np.sqrt(similarity(0, 0) * similarity(1, 1))


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("k", [2, 10])
def test_cknna_is_its_definition(k, unbiased):
    x, y = pair()
    found = hrsa.cknna(x, y, k=k, unbiased=unbiased)
    assert found.value == pytest.approx(dense_cknna(x, y, k, unbiased), abs=1e-10)
    assert ("unbiased" in found.definition) is unbiased
    centred = hrsa.cknna(x, y, k=k, unbiased=unbiased, centred=True)
    assert centred.value == pytest.approx(dense_cknna(x - x.mean(0), y - y.mean(0), k, unbiased), abs=1e-10)


def test_cknna_of_all_neighbours_is_debiased_cka_of_the_cosine_kernel():
    x, y = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in pair())
    assert float(hrsa.cknna(x, y, k=59)) == pytest.approx(float(hrsa.debiased_linear_cka(x, y)), abs=1e-10)


@pytest.mark.parametrize("lam", [1e-4, 0.01, 1.0])
def test_gulp_is_its_definition_and_its_chance_the_mean_over_permutations(lam):
    x, y = pair(e=5)
    x_c, y_c = ((side - side.mean(0)) for side in (x, y))
    x_c, y_c = ((side / np.sqrt((side**2).sum() / len(side))) for side in (x_c, y_c))

    def t(a: np.ndarray, b: np.ndarray) -> float:
        inverse = [np.linalg.inv(s.T @ s / len(s) + lam * np.eye(s.shape[1])) for s in (a, b)]
        cross = a.T @ b / len(a)
        return float(np.trace(inverse[0] @ cross @ inverse[1] @ cross.T))

    found = hrsa.gulp(x, y, lam=lam)
    assert found.value == pytest.approx(t(x_c, x_c) + t(y_c, y_c) - 2 * t(x_c, y_c), rel=1e-9)
    assert found.distance == pytest.approx(np.sqrt(found.value))
    null = hrsa.permutation_null(lambda a, b: hrsa.gulp(a, b, lam=lam), x, y, permutations=200, distance=True)
    assert found.chance == pytest.approx(null.mean, abs=4 * null.sd / np.sqrt(200))
    assert null.p == pytest.approx(1 / 201)


def test_gulp_with_a_small_ridge_ignores_invertible_maps_and_with_a_large_one_does_not():
    x, _ = pair(n=300)
    y = x @ np.random.RandomState(3).randn(8, 8)
    assert float(hrsa.gulp(x, y, lam=1e-8)) < 1e-2 < float(hrsa.gulp(x, y, lam=0.1))


@pytest.mark.parametrize(("d", "e"), [(8, 8), (8, 5), (90, 70)])
def test_procrustes_distance_is_scipys_disparity_and_the_nuclear_norm(d, e):
    x, y = pair(d=d, e=e)
    x_c, y_c = x - x.mean(0), y - y.mean(0)
    found = hrsa.procrustes_distance(x, y)
    nuclear = np.linalg.norm(x_c.T @ y_c, "nuc")
    assert found.raw == pytest.approx((x_c**2).sum() + (y_c**2).sum() - 2 * nuclear, rel=1e-7)
    assert found.angular == pytest.approx(np.arccos(found.similarity))
    assert found.value == pytest.approx(2 - 2 * found.similarity)
    wide = max(d, e)  # scipy wants equal widths
    padded = [np.pad(side, ((0, 0), (0, wide - side.shape[1]))) for side in (x, y)]
    disparity = scipy.spatial.procrustes(*padded)[2]
    assert 1 - found.similarity**2 == pytest.approx(disparity, abs=1e-7)
    assert bool(found.warnings) is (d > 60)


def test_nuclear_norm_of_either_shape():
    matrix = np.random.RandomState(0).randn(30, 12)
    for shaped in (matrix, matrix.T, matrix[:12]):
        assert nuclear_norm(shaped) == pytest.approx(np.linalg.norm(shaped, "nuc"), rel=1e-10)


def test_fewer_rows_than_dimensions_use_smaller_forms():
    """The n x n forms equal the D x D ones."""
    x, y = pair(n=30, d=70)
    a, b = Layer(x), Layer(y)
    gram = x - x.mean(0)
    assert np.allclose(a.compact @ a.compact.T, gram @ gram.T)
    values = np.linalg.eigvalsh(gram.T @ gram / 30)[::-1]
    assert len(a.axes[0]) == 29
    assert np.allclose(a.axes[0], values[:29])
    assert np.allclose(a.axes[1].T @ a.axes[1], np.eye(29), atol=1e-8)
    assert float(hrsa.gulp(a, b)) == pytest.approx(float(hrsa.gulp(x, y)))
    assert hrsa.procrustes_distance(a, b).similarity == pytest.approx(
        nuclear_norm(a.cross(b)) / np.sqrt((a.norms**2).sum() * (b.norms**2).sum())
    )


def test_permutation_match_is_the_best_of_all_permutations():
    x, y = pair(d=5)
    rho = np.abs(np.corrcoef(x.T, y.T)[:5, 5:])
    best = max(permutations(range(5)), key=lambda order: sum(rho[i, j] for i, j in enumerate(order)))
    found = hrsa.permutation_match(x, y)
    assert found.permutation.tolist() == list(best)
    assert found.value == pytest.approx(np.mean([rho[i, j] for i, j in enumerate(best)]))
    assert found.unmatched == pytest.approx(np.diagonal(rho).mean())
    assert found.moved == np.mean([i != j for i, j in enumerate(best)])


def test_permutation_match_tells_relabelled_axes_from_mixed_ones():
    x = np.random.RandomState(0).randn(400, 12)
    order, signs = np.random.RandomState(1).permutation(12), np.where(np.arange(12) % 3, 1, -1)
    renamed = hrsa.permutation_match(x, (x * signs)[:, order])
    assert renamed.value == pytest.approx(1)
    assert np.array_equal(order[renamed.permutation], np.arange(12))
    assert np.array_equal(renamed.signs, signs)
    assert renamed.unmatched is not None
    assert renamed.unmatched < 0.3
    assert hrsa.permutation_match(x, x @ ortho_group.rvs(12, random_state=0)).value < 0.7
    narrow = hrsa.permutation_match(x, x[:, 3:7])
    assert narrow.permutation.tolist() == [-1, -1, -1, 0, 1, 2, 3, *[-1] * 5]
    assert (narrow.unmatched, narrow.moved) == (None, None)


def test_h_inv_of_the_leading_components_sees_through_noise():
    """A steep spectrum under a little noise: the same axes, CKA near 1, and yet a low H_inv."""
    random = np.random.RandomState(0)
    x = random.randn(600, 24) * np.geomspace(1, 1e-4, 24) @ ortho_group.rvs(24, random_state=1)
    y = x + 0.01 * random.randn(600, 24)
    assert float(hrsa.linear_cka(x, y)) > 0.99
    assert hrsa.orthogonal_procrustes(x, y).rescaled < 0.75
    leading = hrsa.orthogonal_procrustes(x, y, components=8)
    assert leading.rescaled > 0.95
    assert leading.residual < 0.01
    assert leading.value == pytest.approx(leading.ceiling, abs=0.02)
    # It still ignores names and signs, and a random rotation is still at the floor.
    assert hrsa.orthogonal_procrustes(x, -y[:, ::-1], components=8).value == pytest.approx(leading.value)
    turned = y @ ortho_group.rvs(24, random_state=2)
    assert abs(hrsa.orthogonal_procrustes(x, turned, components=8).rescaled) < 0.25
    whole = hrsa.orthogonal_procrustes(x, y, components=24)
    assert whole.ceiling == pytest.approx(1)
    assert np.allclose(whole.map, hrsa.orthogonal_procrustes(x, y).map, atol=1e-6)


def test_rows_of_a_partial_isometry_weigh_as_much_as_they_are_long():
    rotation = ortho_group.rvs(6, random_state=0)
    squares = rotation**2
    entropy = -(squares * np.log(squares)).sum(axis=1).mean()
    assert inverse_entropy(rotation) == pytest.approx(1 - entropy / np.log(6))
    assert inverse_entropy(np.diag([1.0, 1.0, 0, 0])) == pytest.approx(1)


def isoscore(z: np.ndarray) -> float:
    """Step by step from the paper (Rudman et al. 2022, algorithm 1)."""
    d = z.shape[1]
    variances = np.linalg.eigvalsh(np.cov(z.T))
    normalised = np.sqrt(d) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(normalised - 1) / np.sqrt(2 * (d - np.sqrt(d)))
    share = (d - defect**2 * (d - np.sqrt(d))) ** 2 / d**2
    return (d * share - 1) / (d - 1)


def test_isotropy_is_isoscore_and_the_mean_over_all_pairs():
    z = np.random.RandomState(0).randn(80, 12) * np.arange(1, 13) + 1
    found = hrsa.isotropy(z)
    assert found.value == pytest.approx(isoscore(z), abs=1e-10)
    assert found.mean_cosine == pytest.approx(cosine_similarity(z)[np.triu_indices(80, 1)].mean())
    assert float(hrsa.isotropy(np.outer(np.arange(1.0, 9), [1, 2, 3]))) == pytest.approx(0, abs=1e-12)


def test_participation_ratio_of_known_spectra():
    random = np.random.RandomState(0)
    basis = random.randn(100, 6)
    basis = np.linalg.qr(basis - basis.mean(0))[0]
    assert float(hrsa.participation_ratio(basis)) == pytest.approx(6)
    assert float(hrsa.participation_ratio(basis[:, :1] @ [[1, 2]])) == pytest.approx(1)
    z = random.randn(200, 50)
    values = np.linalg.eigvalsh(np.cov(z.T))
    assert float(hrsa.participation_ratio(z)) == pytest.approx(values.sum() ** 2 / (values**2).sum())
    assert float(hrsa.participation_ratio(z)) == pytest.approx(200 * 50 / 250, rel=0.05)


def test_permuted_layers_know_what_fresh_ones_compute():
    random = np.random.RandomState(0)
    x, order = random.randn(40, 6), random.permutation(40)
    layer, some = Layer(x), np.arange(0, 40, 2)
    every = np.arange(40)
    layer.neighbours(every, 7), layer.neighbours(some, 5), layer.compact, layer.row_squares, layer.axes
    fresh, moved = Layer(x[order]), layer.reordered(order)
    assert np.array_equal(moved.neighbours(every, 7)[0], fresh.neighbours(every, 7)[0])
    assert np.allclose(moved.row_squares, fresh.row_squares)
    assert float(debiased_cka_of(RowMoments(moved, fresh))) == pytest.approx(1)
    assert len(moved._neighbours) == 1  # `some` changed places with others: it is computed anew
    assert np.array_equal(moved.neighbours(some, 5)[0], fresh.neighbours(some, 5)[0])
    part = layer.taken(some)
    assert len(part._neighbours) == 1
    assert np.array_equal(part.neighbours(every[:20], 5)[0], Layer(x[some]).neighbours(every[:20], 5)[0])
