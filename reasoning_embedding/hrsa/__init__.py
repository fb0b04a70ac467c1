"""Hierarchical representation similarity analysis: the metrics, on arrays or tensors of shape (n, D).

Every function returns a frozen result: ``.value`` (``float(result)`` too), the rows it came from, which
definition it follows, its chance level and its warnings. :data:`METRICS` lists them with their level and what
they ignore; :func:`with_inference` adds an interval and a null to any. Comparing checkpoints, which loads models,
is in :mod:`.pair` and :mod:`.trajectory`.

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

from .metrics.cka import debiased_linear_cka, linear_cka, rbf_cka, unit_row_cka
from .metrics.correlation import DimensionCorrelation, dimension_wise_correlation
from .metrics.distances import Gulp, ProcrustesDistance, gulp, procrustes_distance
from .metrics.neighbours import KnnOverlap, cknna, knn_overlap
from .metrics.permutation import PermutationMatch, permutation_match
from .metrics.probe_transfer import ProbeTransfer, linear_probe_transfer
from .metrics.procrustes import Procrustes, h_inv_floor, orthogonal_procrustes
from .metrics.result import Interval, Metric, NullTest
from .metrics.spectrum import (
    AlphaReq,
    Isotropy,
    PowerLaw,
    alpha_req,
    effective_rank,
    fit_power_law,
    isotropy,
    participation_ratio,
    rankme,
)
from .registry import METRICS, TRANSFORMATIONS, Level, MetricSpec
from .uncertainty.equivalence import Equivalence, equivalence_of_replicates, equivalence_of_runs
from .uncertainty.inference import with_inference
from .uncertainty.resampling import bootstrap_mean, permutation_null
from .uncertainty.seed_band import SeedBand, seed_band

__all__ = [
    "METRICS",
    "TRANSFORMATIONS",
    "AlphaReq",
    "DimensionCorrelation",
    "Equivalence",
    "Gulp",
    "Interval",
    "Isotropy",
    "KnnOverlap",
    "Level",
    "Metric",
    "MetricSpec",
    "NullTest",
    "PermutationMatch",
    "PowerLaw",
    "ProbeTransfer",
    "Procrustes",
    "ProcrustesDistance",
    "SeedBand",
    "alpha_req",
    "bootstrap_mean",
    "cknna",
    "debiased_linear_cka",
    "dimension_wise_correlation",
    "effective_rank",
    "equivalence_of_replicates",
    "equivalence_of_runs",
    "fit_power_law",
    "gulp",
    "h_inv_floor",
    "isotropy",
    "knn_overlap",
    "linear_cka",
    "linear_probe_transfer",
    "orthogonal_procrustes",
    "participation_ratio",
    "permutation_match",
    "permutation_null",
    "procrustes_distance",
    "rankme",
    "rbf_cka",
    "seed_band",
    "unit_row_cka",
    "with_inference",
]
