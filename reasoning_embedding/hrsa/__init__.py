"""Hierarchical representation similarity analysis: the metrics, on arrays or tensors of shape (n, D).

Every function returns a frozen result: ``.value`` (``float(result)`` too), the rows it came from, which
definition it follows, its chance level and its warnings. Comparing checkpoints, which loads models, is in
:mod:`.compare` and :mod:`.realignment`.

Examples
--------
>>> import numpy as np
>>> from reasoning_embedding import hrsa
>>> x = np.random.RandomState(0).randn(400, 32)
>>> rotated = 3 * x @ np.linalg.qr(np.random.RandomState(1).randn(32, 32))[0]
>>> print(f"{float(hrsa.linear_cka(x, rotated)):.3f}")  # geometry does not care about the basis
1.000
>>> fit = hrsa.orthogonal_procrustes(x, rotated)  # the representation does
>>> print(f"H_inv {fit.value:.2f}, of a random basis {fit.floor:.2f}")
H_inv 0.21, of a random basis 0.20
>>> overlap = hrsa.knn_overlap(x, rotated + 5, k=10)  # cosine neighbours see a shift
>>> print(f"{overlap.value:.2f}, by chance {overlap.chance:.2f}")
0.46, by chance 0.01
"""

from .function import ProbeTransfer, linear_probe_transfer
from .geometry import KnnOverlap, debiased_linear_cka, knn_overlap, linear_cka, rbf_cka
from .inference import Interval, NullTest, bootstrap_mean, permutation_null
from .representation import (
    DimensionCorrelation,
    Procrustes,
    dimension_wise_correlation,
    h_inv_floor,
    orthogonal_procrustes,
)
from .result import Metric
from .spectrum import AlphaReq, alpha_req, effective_rank, fit_power_law, rankme

__all__ = [
    "AlphaReq",
    "DimensionCorrelation",
    "Interval",
    "KnnOverlap",
    "Metric",
    "NullTest",
    "ProbeTransfer",
    "Procrustes",
    "alpha_req",
    "bootstrap_mean",
    "debiased_linear_cka",
    "dimension_wise_correlation",
    "effective_rank",
    "fit_power_law",
    "h_inv_floor",
    "knn_overlap",
    "linear_cka",
    "linear_probe_transfer",
    "orthogonal_procrustes",
    "permutation_null",
    "rankme",
    "rbf_cka",
]
