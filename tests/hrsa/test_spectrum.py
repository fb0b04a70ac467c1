"""RankMe and alpha-ReQ against numbers known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning_embedding import hrsa
from reasoning_embedding.hrsa.metrics.spectrum import alpha_of, eigenvalues


def test_the_two_rankme_variants_differ_on_one_spectrum():
    eigenvalues = 1 / np.arange(1, 1025)
    assert hrsa.effective_rank(np.sqrt(eigenvalues)) == pytest.approx(805.6, abs=0.05)
    assert hrsa.effective_rank(eigenvalues) == pytest.approx(182.5, abs=0.05)


@pytest.mark.parametrize(("n", "sigma", "eigen"), [(10_000, 255.2, 252.7), (300, 217.6, 167.2)])
def test_rankme_of_gaussian_features(n, sigma, eigen):
    z = np.random.RandomState(0).randn(n, 256)
    assert float(hrsa.rankme(z)) == pytest.approx(sigma, rel=0.005)
    assert float(hrsa.rankme(z, "lambda")) == pytest.approx(eigen, rel=0.01)
    assert "eigenvalue" in hrsa.rankme(z, "lambda").definition


def test_only_the_sigma_variant_sees_the_mean():
    z = np.random.RandomState(0).randn(500, 32)
    assert float(hrsa.rankme(z + 9, "lambda")) == pytest.approx(float(hrsa.rankme(z, "lambda")), rel=1e-9)
    assert float(hrsa.rankme(z + 9)) < 0.8 * float(hrsa.rankme(z))
    assert float(hrsa.alpha_req(z + 9)) == pytest.approx(float(hrsa.alpha_req(z)), rel=1e-6)


def test_rankme_of_few_rows_says_so():
    assert "20 rows for 64 dimensions" in hrsa.rankme(np.random.RandomState(0).randn(20, 64)).warnings[0]


@given(d=st.integers(2, 900), level=st.floats(1e-3, 1e3))
def test_flat_spectrum_has_full_rank(d, level):
    assert hrsa.effective_rank(np.full(d, level)) == pytest.approx(d, rel=1e-3)


@given(alpha=st.floats(0.1, 3), d=st.integers(120, 400))
def test_exact_power_law(alpha, d):
    slope, r2, ranks = hrsa.fit_power_law(np.arange(1, d + 1.0) ** -alpha)
    assert slope == pytest.approx(alpha, abs=1e-12)
    assert r2 == pytest.approx(1, abs=1e-12)
    assert ranks == (12, 100)


def test_weights_are_those_of_a_weighted_polynomial_fit():
    random = np.random.RandomState(0)
    spectrum = np.sort(np.arange(1, 151.0) ** -1.2 * np.exp(0.2 * random.randn(150)))[::-1]
    rank = np.arange(6, 51)
    # numpy's weights multiply residuals, so 1 / rank on squares is its root there.
    expected = -np.polyfit(np.log(rank), np.log(spectrum[5:50]), 1, w=rank**-0.5)[0]
    assert hrsa.fit_power_law(spectrum, (6, 50))[0] == pytest.approx(expected, abs=1e-10)


def test_sampled_power_law():
    found = [
        hrsa.alpha_req(np.random.RandomState(seed).randn(2000, 256) * np.arange(1, 257) ** -0.5)
        for seed in range(4)
    ]
    assert np.mean([float(f) for f in found]) == pytest.approx(1.0, abs=0.02)
    assert min(f.r2 for f in found) > 0.99
    assert found[0].ranks == (12, 100)


def test_a_short_spectrum_cuts_the_range_and_says_so():
    found = hrsa.alpha_req(np.random.RandomState(0).randn(500, 64) * np.arange(1, 65) ** -0.5)
    assert found.ranks == (12, 64)
    assert "12..64 fitted" in found.warnings[0]


def test_windows_show_where_a_spectrum_bends():
    rank = np.arange(1, 201.0)
    bent = np.where(rank < 48, rank**-0.5, 48**1.5 * rank**-2.0)
    found = alpha_of(bent, n=1000, width=200)
    assert [window.ranks for window in found.windows] == [(12, 24), (24, 48), (48, 100)]
    assert [window.alpha for window in found.windows] == pytest.approx([0.5, 0.5, 2.0], abs=0.05)
    straight = alpha_of(rank**-1.2, n=1000, width=200, ranks=(1, 200))
    assert [window.alpha for window in straight.windows] == pytest.approx([1.2] * len(straight.windows))
    assert [window.ranks[0] for window in straight.windows] == [2, 4, 8, 16, 32, 64]
    assert alpha_of(rank**-1.2, n=1000, width=200, ranks=(4, 6)).windows[0].ranks == (4, 6)


def test_a_spectrum_that_is_no_power_law_is_called_so():
    steps = np.where(np.arange(100) < 50, 1.0, 0.01)
    assert "no power law" in alpha_of(steps, n=1000, width=100).warnings[0]


@pytest.mark.parametrize("shape", [(300, 40), (30, 90)])
def test_eigenvalues_are_squared_singular_values(shape):
    z = np.random.RandomState(0).randn(*shape) + 3
    centred = np.linalg.svd(z - z.mean(axis=0), compute_uv=False)[: min(shape[0] - 1, shape[1])]
    assert np.allclose(eigenvalues(z), centred**2 / (shape[0] - 1))
    plain = np.linalg.svd(z, compute_uv=False)
    assert np.allclose(eigenvalues(z, centred=False), plain**2 / (shape[0] - 1))
    assert float(hrsa.rankme(z)) == pytest.approx(hrsa.effective_rank(plain), rel=1e-6)
