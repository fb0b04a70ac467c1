"""Hierarchical representation similarity analysis: the metrics, on arrays or tensors of shape (n, D).

The comparison of checkpoints, which loads models, is in :mod:`.compare` and :mod:`.realignment`.
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
