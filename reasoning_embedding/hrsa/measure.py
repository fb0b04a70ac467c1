"""All metrics of one pair of layers, and the rows that take part in neighbourhoods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.errors import InputError

from .metrics.correlation import CORRELATION, correlation_of
from .metrics.distances import gulp_of, procrustes_distance_of
from .metrics.kernels import cknna_of, rbf_cka_of
from .metrics.layer import Layer, frobenius_square
from .metrics.neighbours_and_cka import (
    CKA,
    DEBIASED_CKA,
    KnnOverlap,
    cka_of,
    debiased_cka_of,
    distinct_in_all,
    knn_overlap_of,
)
from .metrics.permutation import permutation_match_of
from .metrics.procrustes import H_INV, Procrustes, procrustes_of
from .metrics.result import Metric
from .side import Side
from .uncertainty.resampling import shuffles

#: Distinct rows whose neighbours are compared: n x n similarities of every layer are what costs most.
KNN_ROWS = 1000
#: Shuffles behind the chance level of CKNNA.
_SHUFFLES = 5
#: Metrics that running sums give too, with their definitions.
LINEAR = {
    "dimension_correlation": CORRELATION,
    "h_inv": H_INV,
    "h_inv_rescaled": "(H_inv - floor) / (1 - floor), floor = H_inv of a random orthogonal map",
    "procrustes_residual": "|XO - Y|_F^2 / |Y|_F^2 on centred rows of held-out texts",
    "procrustes_cosine": "mean cosine of the rows of XO and Y, centred rows of held-out texts",
    "cka": CKA,
    "cka_debiased": DEBIASED_CKA,
}


@dataclass(frozen=True)
class KnnRows:
    """Rows of the k-NN metrics, without duplicates.

    Parameters
    ----------
    context, embedding : array of int
        For pairs of contextual layers, and for pairs with an embedding output, where every occurrence of a
        token is a duplicate.
    distinct : int
        Distinct contextual rows before the sample of at most `KNN_ROWS`.
    """

    context: np.ndarray
    embedding: np.ndarray
    distinct: int

    def of(self, i: int, j: int) -> np.ndarray:
        """Rows for layer `i` of one model and `j` of the other; 0 is the embedding output."""
        return self.context if i and j else self.embedding


def knn_rows(a: Side, b: Side, seed: int) -> KnnRows:
    """Choose the rows that repeat no other row in any layer of either model."""
    context = distinct_in_all([*a.layers[1:], *b.layers[1:]])
    embedding = distinct_in_all([a.layers[0], b.layers[0]], context)
    return KnnRows(_few(context, seed), _few(embedding, seed), len(context))


def _few(rows: np.ndarray, seed: int) -> np.ndarray:
    if len(rows) <= KNN_ROWS:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, size=KNN_ROWS, replace=False))


@dataclass
class Measured:
    """Metrics by name; those that could not be computed are missing and explained in `warnings`."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    procrustes: Procrustes | None = None
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Distinct rows that the metrics of n x n similarities were computed from."""
    overlaps: dict[int, KnnOverlap] = field(default_factory=dict)

    def add(self, compute: Callable[[], dict[str, Metric]]) -> None:
        """Add what `compute` gives, or the reason why it gives nothing."""
        try:
            found = compute()
        except InputError as error:
            self.warnings.append(error.what)
            return
        for metric in found.values():
            self.warnings += metric.warnings
        self.metrics |= found


def metric_names(ks: Iterable[int]) -> list[str]:
    """Names of the metrics of one pair of layers, in the order of the levels."""
    ks = list(ks)
    return [
        *("dimension_correlation", "permutation_match"),
        *("h_inv", "h_inv_rescaled", "procrustes_residual", "procrustes_cosine"),
        *("cka", "cka_debiased", "procrustes_distance", "gulp"),
        *(f"knn_{form}@{k}" for form in ("jaccard", "mutual") for k in ks),
        "cka_rbf",
        *(f"cknna@{k}" for k in ks if k >= 2),
    ]


def measure(
    a: Layer,
    b: Layer,
    rows: np.ndarray,
    documents: np.ndarray,
    analysis: config.Measuring,
    *,
    linear: bool = True,
) -> Measured:
    """Compute every metric of the representation and geometry levels for one pair of layers.

    Metrics without a chance level in closed form get that of a few shuffles of whole texts.

    Parameters
    ----------
    a, b : Layer
        The same rows in two models.
    rows : array of int, ascending
        Distinct rows for the metrics of n x n similarities: k-NN, CKNNA and RBF CKA.
    documents : array of int, shape (n,)
        The text of each row.
    analysis : config.Measuring
        Neighbourhood sizes, held-out share, seed.
    linear : bool
        Whether those of :data:`LINEAR` are wanted, which running sums over more rows may give instead.
    """
    result = Measured(rows=rows)
    cross = a.cross(b)
    shuffled = b.reordered(next(shuffles(documents, 1, analysis.seed)))
    result.add(lambda: _with_chance("permutation_match", permutation_match_of, a, b, [shuffled]))
    if linear and a.width == b.width:
        result.add(lambda: {"dimension_correlation": correlation_of(a, b)})
        result.add(lambda: _procrustes(result, a, b, documents, analysis))
    if linear:
        square = frobenius_square(cross)
        result.add(lambda: {"cka": cka_of(a, b, square)})
        result.add(lambda: {"cka_debiased": debiased_cka_of(a, b, square)})
    result.add(lambda: _with_chance("procrustes_distance", procrustes_distance_of, a, b, [shuffled]))
    result.add(lambda: {"gulp": gulp_of(a, b, cross=cross)})
    for k in analysis.k:
        result.add(lambda k=k: _overlap(result, a, b, rows, k, max(analysis.k)))
    if len(rows) > 1:
        _add_kernels(result, a.taken(rows), b.taken(rows), documents[rows], analysis)
    return result


def _add_kernels(
    result: Measured, a: Layer, b: Layer, documents: np.ndarray, analysis: config.Measuring
) -> None:
    """Add what needs n x n kernels, of layers of distinct rows whose neighbours are known."""
    result.add(lambda: {"cka_rbf": rbf_cka_of(a, b)})
    every = np.arange(len(a))
    shuffled = [b.reordered(order) for order in shuffles(documents, _SHUFFLES, analysis.seed)]
    for k in analysis.k:
        if k >= 2:
            of = partial(cknna_of, rows=every, k=k)
            result.add(lambda k=k, of=of: _with_chance(f"cknna@{k}", of, a, b, shuffled))


def _with_chance(
    name: str, of: Callable[[Layer, Layer], Metric], a: Layer, b: Layer, shuffled: Sequence[Layer]
) -> dict[str, Metric]:
    return {name: replace(of(a, b), chance=float(np.mean([float(of(a, other)) for other in shuffled])))}


def _procrustes(
    result: Measured, a: Layer, b: Layer, documents: np.ndarray, analysis: config.Measuring
) -> dict[str, Metric]:
    fit = procrustes_of(a, b, heldout=analysis.heldout, seed=analysis.seed, documents=documents)
    result.procrustes = fit
    held = len(fit.heldout)
    return {
        "h_inv": Metric(
            value=fit.value, n=fit.n, definition=fit.definition, chance=fit.floor, warnings=fit.warnings
        ),
        "h_inv_rescaled": Metric(
            value=fit.rescaled,
            n=fit.n,
            definition=LINEAR["h_inv_rescaled"],
            chance=0.0,
        ),
        "procrustes_residual": Metric(
            value=fit.residual,
            n=held,
            definition=LINEAR["procrustes_residual"],
            chance=fit.residual_chance,
        ),
        "procrustes_cosine": Metric(
            value=fit.cosine,
            n=held,
            definition=LINEAR["procrustes_cosine"],
            chance=0.0,
        ),
    }


def _overlap(result: Measured, a: Layer, b: Layer, rows: np.ndarray, k: int, k_max: int) -> dict[str, Metric]:
    overlap = knn_overlap_of(a, b, rows, k, k_max=k_max)
    result.overlaps[k] = overlap
    mutual = Metric(
        value=overlap.mutual, n=overlap.n, definition=overlap.mutual_definition, chance=overlap.mutual_chance
    )
    return {f"knn_jaccard@{k}": overlap, f"knn_mutual@{k}": mutual}


def finite(metric: Metric | None, digits: int = 6) -> float | None:
    """Value for a JSON file: rounded, None where there is none or it is not finite."""
    value = None if metric is None else metric.value
    return round(value, digits) if value is not None and np.isfinite(value) else None


def merged_warnings(found: Iterable[tuple[str, str]]) -> list[str]:
    """Say each warning once, with the places (layers, steps) it holds for."""
    places: dict[str, list[str]] = {}
    for place, warning in found:
        known = places.setdefault(warning, [])
        if place not in known:
            known.append(place)
    return [f"{', '.join(at)}: {warning}" for warning, at in places.items()]
