"""Which metrics there are, at which level, and what each must and must not notice.

A level is a claim about transformations: rotating a model's states changes its representation and leaves its
geometry alone. Each level names what all its metrics ignore and notice, and a metric adds its own. "Ignores T":
``m(X, T(Y)) = m(X, Y)`` for all X and Y (of one model's features: ``m(T(Z)) = m(Z)``). "Notices T": a T of the
kind below makes ``m(X, T(X))`` differ from ``m(X, X)``. The tests hold every metric to its row.

=========================== ========== ===== ===== ======= ===== ========== ======= ====== =======
metric                      identity   scale shift permute signs orthogonal columns linear shuffle
=========================== ========== ===== ===== ======= ===== ========== ======= ====== =======
dimension_wise_correlation  ignores    ign.  ign.  not.    not.  not.       ign.    not.   not.
permutation_match           ignores    ign.  ign.  ign.    ign.  not.       ign.    not.   not.
orthogonal_procrustes H_inv ignores    ign.  ign.  ign.    ign.  not.       a bit   not.   not.
linear_cka                  ignores    ign.  ign.  ign.    ign.  ign.       not.    not.   not.
debiased_linear_cka         ignores    ign.  ign.  ign.    ign.  ign.       not.    not.   not.
unit_row_cka                ignores    ign.  -     ign.    ign.  ign.       not.    not.   not.
rbf_cka                     ignores    ign.  ign.  ign.    ign.  ign.       not.    not.   not.
procrustes_distance         ignores    ign.  ign.  ign.    ign.  ign.       not.    not.   not.
gulp                        ignores    ign.  ign.  ign.    ign.  ign.       not.    not.   not.
knn_overlap                 ignores    ign.  not.  ign.    ign.  ign.       not.    not.   not.
cknna                       ignores    ign.  not.  ign.    ign.  ign.       not.    not.   not.
linear_probe_transfer       ignores    -     -     not.    not.  not.       -       not.   not.
rankme (sigma)              ignores    ign.  not.  ign.    ign.  ign.       not.    not.   ign.
alpha_req                   ignores    ign.  ign.  ign.    ign.  ign.       not.    not.   ign.
participation_ratio         ignores    ign.  ign.  ign.    ign.  ign.       not.    not.   ign.
isotropy (IsoScore)         ignores    ign.  ign.  ign.    ign.  ign.       not.    not.   ign.
=========================== ========== ===== ===== ======= ===== ========== ======= ====== =======
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .metrics.cka import debiased_linear_cka, linear_cka, rbf_cka, unit_row_cka
from .metrics.correlation import dimension_wise_correlation
from .metrics.distances import gulp, procrustes_distance
from .metrics.layer import Layer
from .metrics.neighbours import cknna, cknna_of, knn_overlap, knn_overlap_of
from .metrics.permutation import permutation_match
from .metrics.probe_transfer import linear_probe_transfer
from .metrics.procrustes import orthogonal_procrustes
from .metrics.result import Metric
from .metrics.spectrum import alpha_req, isotropy, participation_ratio, rankme

#: The transformations: rows (n, D) and a generator to rows (n, D).
TRANSFORMATIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "identity": lambda x, rng: x.copy(),
    "scale": lambda x, rng: 3 * x,
    "shift": lambda x, rng: x + 5,
    "permutation": lambda x, rng: x[:, rng.permutation(x.shape[1])],
    "sign flips": lambda x, rng: x * rng.permutation(np.where(np.arange(x.shape[1]) % 2, 1, -1)),
    "orthogonal": lambda x, rng: x @ np.linalg.qr(rng.standard_normal((x.shape[1], x.shape[1])))[0],
    "column scaling": lambda x, rng: x * rng.permutation(np.geomspace(0.5, 2, x.shape[1])),
    "random linear": lambda x, rng: x @ rng.standard_normal((x.shape[1], x.shape[1])),
    "row shuffle": lambda x, rng: rng.permutation(x),
}


@dataclass(frozen=True, slots=True)
class Level:
    """A level of the hierarchy: what its metrics ask, and what all of them ignore and notice.

    Parameters
    ----------
    name : str
        One word.
    question : str
        What is asked at this level.
    invariant_to, sensitive_to : frozenset of str
        Names from :data:`TRANSFORMATIONS`.
    """

    name: str
    question: str
    invariant_to: frozenset[str]
    sensitive_to: frozenset[str]


_MIXED = frozenset({"random linear", "row shuffle"})
_RENAMED = frozenset({"permutation", "sign flips"})
_NONE: frozenset[str] = frozenset()
_RIGID = frozenset({"identity", "scale", "orthogonal"}) | _RENAMED

REPRESENTATION = Level(
    "representation",
    "do the two models use the same axes?",
    frozenset({"identity", "scale", "shift"}),
    _MIXED | {"orthogonal"},
)
GEOMETRY = Level(
    "geometry",
    "are the same rows near each other in both models?",
    _RIGID,
    _MIXED | {"column scaling"},
)
FUNCTION = Level(
    "function",
    "does a readout learnt on one model work on the other?",
    frozenset({"identity"}),
    _MIXED | _RENAMED | {"orthogonal"},
)
SPECTRUM = Level(
    "spectrum",
    "how many directions does one model use, and how unevenly?",
    _RIGID | {"row shuffle"},
    frozenset({"column scaling", "random linear"}),
)


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A metric and its contract.

    Parameters
    ----------
    function : callable
        The public function: rows in, :class:`Metric` out.
    level : Level
        Where it belongs; the spectrum's metrics take one model, all others two.
    also_invariant_to, also_sensitive_to : frozenset of str
        Beside those of the level.
    of_layers : callable, optional
        What takes layers of distinct rows, and reuses the work on each; the function itself where it does.
    distance : bool
        Whether small means similar.
    needs_distinct : bool
        Whether repeated rows spoil it, so that it is resampled without replacement.
    takes_documents : bool
        Whether the function has a `documents` argument.
    """

    function: Callable[..., Metric]
    level: Level
    also_invariant_to: frozenset[str] = _NONE
    also_sensitive_to: frozenset[str] = _NONE
    of_layers: Callable[..., Metric] | None = None
    distance: bool = False
    needs_distinct: bool = False
    takes_documents: bool = False

    def __post_init__(self) -> None:
        clash = self.invariant_to & self.sensitive_to
        unknown = (self.invariant_to | self.sensitive_to) - set(TRANSFORMATIONS)
        if clash or unknown:
            raise ValueError(f"{self.name}: contradictory {sorted(clash)}, unknown {sorted(unknown)}")

    @property
    def name(self) -> str:
        """The function's name."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def invariant_to(self) -> frozenset[str]:
        """Transformations it must ignore."""
        return self.level.invariant_to | self.also_invariant_to

    @property
    def sensitive_to(self) -> frozenset[str]:
        """Transformations it must notice."""
        return self.level.sensitive_to | self.also_sensitive_to


def _knn(a: Layer, b: Layer, k: int = 10, **options: Any) -> Metric:
    return knn_overlap_of(a, b, np.arange(len(a)), k, **options)


def _cknna(a: Layer, b: Layer, k: int = 10, **options: Any) -> Metric:
    return cknna_of(a, b, np.arange(len(a)), k, **options)


_SHIFT = frozenset({"shift"})
_SPECS = (
    MetricSpec(
        dimension_wise_correlation,
        REPRESENTATION,
        frozenset({"column scaling"}),
        _RENAMED,
        of_layers=dimension_wise_correlation,
    ),
    MetricSpec(permutation_match, REPRESENTATION, _RENAMED | {"column scaling"}, of_layers=permutation_match),
    MetricSpec(
        orthogonal_procrustes, REPRESENTATION, _RENAMED, of_layers=orthogonal_procrustes, takes_documents=True
    ),
    MetricSpec(linear_cka, GEOMETRY, _SHIFT, of_layers=linear_cka),
    MetricSpec(debiased_linear_cka, GEOMETRY, _SHIFT, of_layers=debiased_linear_cka, needs_distinct=True),
    MetricSpec(unit_row_cka, GEOMETRY, of_layers=unit_row_cka, needs_distinct=True),
    MetricSpec(rbf_cka, GEOMETRY, _SHIFT, of_layers=rbf_cka),
    MetricSpec(procrustes_distance, GEOMETRY, _SHIFT, of_layers=procrustes_distance, distance=True),
    MetricSpec(gulp, GEOMETRY, _SHIFT, of_layers=gulp, distance=True),
    MetricSpec(knn_overlap, GEOMETRY, _NONE, _SHIFT, of_layers=_knn, needs_distinct=True),
    MetricSpec(cknna, GEOMETRY, _NONE, _SHIFT, of_layers=_cknna, needs_distinct=True),
    MetricSpec(linear_probe_transfer, FUNCTION),
    MetricSpec(rankme, SPECTRUM, _NONE, _SHIFT),
    MetricSpec(alpha_req, SPECTRUM, _SHIFT),
    MetricSpec(participation_ratio, SPECTRUM, _SHIFT),
    MetricSpec(isotropy, SPECTRUM, _SHIFT),
)
#: Every metric by name.
METRICS: dict[str, MetricSpec] = {spec.name: spec for spec in _SPECS}
