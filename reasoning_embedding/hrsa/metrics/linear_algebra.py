"""Products and factorisations of NumPy arrays by torch: MKL, in its builds for x86, is several times OpenBLAS."""

from __future__ import annotations

import numpy as np
import torch


def product(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """``a @ b`` of two matrices of one type, into `out` where given."""
    target = None if out is None else torch.from_numpy(out)
    return torch.mm(_tensor(a), _tensor(b), out=target).numpy()


def small_gram(matrix: np.ndarray) -> np.ndarray:
    """The smaller of ``M'M`` and ``MM'``, which have the same eigenvalues up to zeros."""
    tall = matrix.shape[0] >= matrix.shape[1]
    return product(matrix.T, matrix) if tall else product(matrix, matrix.T)


def svd(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Singular vectors (m, r), singular values (r,), largest first, and transposed singular vectors (r, n)."""
    left, singular, right = torch.linalg.svd(_tensor(matrix), full_matrices=False)
    return left.numpy(), singular.numpy(), right.numpy()


def singular_values(matrix: np.ndarray) -> np.ndarray:
    """Singular values (r,), largest first."""
    return torch.linalg.svdvals(_tensor(matrix)).numpy()


def eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (n,), smallest first, and eigenvectors (n, n), as columns, of a symmetric matrix."""
    values, vectors = torch.linalg.eigh(_tensor(matrix))
    return values.numpy(), vectors.numpy()


def eigvalsh(matrix: np.ndarray) -> np.ndarray:
    """Eigenvalues (n,), smallest first, of a symmetric matrix."""
    return torch.linalg.eigvalsh(_tensor(matrix)).numpy()


def upper_factor(matrix: np.ndarray) -> np.ndarray:
    """R (min(m, n), n) of ``matrix = Q R``."""
    return torch.linalg.qr(_tensor(matrix), mode="r").R.numpy()


def _tensor(array: np.ndarray) -> torch.Tensor:
    """The same memory; a copy where torch cannot look at it (reversed or read-only arrays)."""
    seen = array.flags.writeable and min(array.strides) >= 0
    return torch.from_numpy(array if seen else array.copy())
