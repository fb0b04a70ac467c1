"""Torch's products and factorisations of arrays are NumPy's, whatever the array's memory looks like."""

from __future__ import annotations

import numpy as np
import pytest

from reasoning_embedding.hrsa.metrics.linear_algebra import (
    eigh,
    eigvalsh,
    product,
    singular_values,
    small_gram,
    svd,
    upper_factor,
)


def draw(*shape: int, dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def read_only(matrix: np.ndarray) -> np.ndarray:
    matrix = matrix.copy()
    matrix.flags.writeable = False
    return matrix


@pytest.mark.parametrize(
    "seen",
    [np.asarray, np.asfortranarray, lambda m: m[::-1], lambda m: m[:, ::-1], lambda m: m[::2], read_only],
    ids=["rows", "columns", "upside down", "mirrored", "every other row", "read-only"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("error")
def test_products_of_any_layout(seen, dtype):
    a, b = seen(draw(8, 6, dtype=dtype)), draw(6, 5, dtype=dtype)
    np.testing.assert_allclose(product(a, b), a @ b, rtol=0, atol=100 * np.finfo(dtype).eps)
    out = np.empty((len(a), 5), dtype)
    product(a, b, out=out)
    np.testing.assert_array_equal(out, product(a, b))
    np.testing.assert_allclose(product(b.T, a.T), (a @ b).T, rtol=0, atol=100 * np.finfo(dtype).eps)


@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (5, 5)])
def test_factorisations(shape):
    matrix = draw(*shape)
    left, singular, right = svd(matrix)
    np.testing.assert_allclose((left * singular) @ right, matrix, atol=1e-12)
    np.testing.assert_allclose(singular_values(matrix), singular, rtol=1e-12)
    np.testing.assert_allclose(singular, np.linalg.svd(matrix, compute_uv=False), rtol=1e-12)
    small = small_gram(matrix)
    assert small.shape == (5, 5)
    np.testing.assert_allclose(eigvalsh(small), np.sort(singular**2), rtol=1e-10)
    values, vectors = eigh(small)
    np.testing.assert_allclose((vectors * values) @ vectors.T, small, atol=1e-12)
    factor = upper_factor(matrix)
    assert factor.shape == (5, shape[1])
    np.testing.assert_allclose(factor.T @ factor, matrix.T @ matrix, atol=1e-12)
