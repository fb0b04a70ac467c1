"""Every metric of one pair of layers, each computed once: from rows, or from running sums where there are more rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.errors import InputError

from .metrics.cka import cka_of, debiased_cka_of, rbf_cka, unit_cka_of
from .metrics.correlation import correlation_of
from .metrics.distances import gulp_of, procrustes_distance
from .metrics.layer import Layer
from .metrics.neighbours import KnnOverlap, cknna_of, distinct_in_all, knn_overlap_of
from .metrics.own import measure_own
from .metrics.permutation import permutation_match
from .metrics.procrustes import (
    COSINE,
    H_INV_OF_DETERMINED,
    H_INV_RESCALED,
    RESIDUAL,
    Procrustes,
    orthogonal_procrustes,
    procrustes_of_sums,
)
from .metrics.result import Metric, effective_rows
from .metrics.spectrum import (
    alpha_of,
    alpha_req,
    isotropy,
    participation_of,
    participation_ratio,
    rankme,
    rankme_of,
)
from .moments import CrossMoments, Moments, PairMoments, RowMoments
from .uncertainty.resampling import shuffles

#: Distinct rows whose neighbours are compared: n x n similarities of every layer are what costs most.
KNN_ROWS = 1000
#: Shuffles behind the chance level of CKNNA.
_SHUFFLES = 5
#: Metrics that second moments give, so that running sums over any number of rows do.
LINEAR = (
    *("dimension_correlation", "h_inv", "h_inv_rescaled", "procrustes_residual", "procrustes_cosine"),
    *("cka", "cka_debiased"),
)


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


def knn_rows(a: Sequence[Layer], b: Sequence[Layer], seed: int) -> KnnRows:
    """Choose the rows that repeat no other row in any layer of either model."""
    context = distinct_in_all([*a[1:], *b[1:]])
    embedding = distinct_in_all([a[0], b[0]], context)
    return KnnRows(_few(context, seed), _few(embedding, seed), len(context))


def _few(rows: np.ndarray, seed: int) -> np.ndarray:
    if len(rows) <= KNN_ROWS:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, size=KNN_ROWS, replace=False))


@dataclass
class Measured:
    """Metrics of a pair of layers by name; those that could not be computed are missing and explained in `warnings`."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    procrustes: Procrustes | None = None
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Distinct rows that the metrics of n x n similarities were computed from."""
    overlaps: dict[int, KnnOverlap] = field(default_factory=dict)
    summed: int | None = None
    """Rows that the metrics of :data:`LINEAR` were computed from, where those are running sums."""

    @property
    def effective_rows(self) -> float:
        """How many rows carry the variance; 0 where nothing could be measured."""
        return max(
            (m.effective_rows for m in self.metrics.values() if m.effective_rows is not None), default=0.0
        )

    def add(self, compute: Callable[[], dict[str, Metric]]) -> None:
        """Add what `compute` gives, or the reason why it gives nothing."""
        try:
            found = compute()
        except InputError as error:
            self.warnings.append(error.what)
            return
        for metric in found.values():
            self.warnings += [text for text in metric.warnings if text not in self.warnings]
        self.metrics |= found


def metric_names(ks: Iterable[int]) -> list[str]:
    """Names of the metrics of one pair of layers, in the order of the levels."""
    ks = list(ks)
    return [
        *("dimension_correlation", "permutation_match"),
        *("h_inv", "h_inv_rescaled", "procrustes_residual", "procrustes_cosine"),
        *("cka", "cka_debiased", "cka_unit", "procrustes_distance", "gulp"),
        *(f"knn_{form}@{k}" for form in ("jaccard", "mutual") for k in ks),
        "cka_rbf",
        *(f"cknna@{k}" for k in ks if k >= 2),
    ]


def names_of(settings: config.Measuring) -> list[str]:
    """Names of all metrics that settings ask for: :func:`metric_names`, then the user's own."""
    return [*metric_names(settings.k), *(metric.label for metric in settings.metrics)]


def measure(
    a: Layer,
    b: Layer,
    rows: np.ndarray,
    documents: np.ndarray,
    settings: config.Measuring,
    *,
    sums: tuple[CrossMoments, np.ndarray] | None = None,
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
    settings : config.Measuring
        Neighbourhood sizes, held-out share, seed.
    sums : (CrossMoments, array of bool of shape (n,)), optional
        Running sums over more rows of the same layers, which the metrics of :data:`LINEAR` are computed from alone; and
        which of the rows (n,) they hold out of the Procrustes fit, whose cosines are taken.
    """
    result = Measured(rows=rows, summed=None if sums is None else sums[0].n)
    kept = RowMoments(a, b)
    shuffled = b.reordered(next(shuffles(documents, 1, settings.seed)))
    result.add(lambda: _with_chance("permutation_match", permutation_match, a, b, [shuffled]))
    if sums is None:
        split: dict[str, Any] = {"heldout": settings.heldout, "seed": settings.seed, "documents": documents}
        _add_linear(result, kept, lambda: orthogonal_procrustes(a, b, **split))
    else:
        moments, held = sums[0], np.flatnonzero(sums[1])
        _add_linear(result, moments, lambda: procrustes_of_sums(moments, (a.rows[held], b.rows[held], held)))
    result.add(lambda: {"cka_unit": unit_cka_of(a, b)})
    result.add(lambda: _with_chance("procrustes_distance", procrustes_distance, a, b, [shuffled]))
    result.add(lambda: {"gulp": gulp_of(kept)})
    for k in settings.k:
        result.add(lambda k=k: _overlap(result, a, b, rows, k, max(settings.k)))
    if len(rows) > 1:
        _add_kernels(result, a.taken(rows), b.taken(rows), documents[rows], settings)
    for metric in settings.metrics:
        result.add(lambda metric=metric: {metric.label: measure_own(metric, a.rows, b.rows)})
    carried = effective_rows(*((sums[0].x, sums[0].y) if sums else (a, b)))
    result.metrics = {
        name: replace(metric, effective_rows=carried) for name, metric in result.metrics.items()
    }
    return result


def measure_sums(sums: CrossMoments) -> Measured:
    """Compute the metrics of :data:`LINEAR` from running sums alone, where no rows are held."""
    result = Measured(summed=sums.n)
    _add_linear(result, sums, lambda: procrustes_of_sums(sums))
    return result


def _add_linear(result: Measured, pair: PairMoments, fit: Callable[[], Procrustes]) -> None:
    """Add what second moments give, whichever way they were taken."""
    if pair.x.width == pair.y.width:
        result.add(lambda: {"dimension_correlation": correlation_of(pair)})
        result.add(lambda: _procrustes(result, pair, fit()))
    result.add(lambda: {"cka": cka_of(pair)})
    result.add(lambda: {"cka_debiased": debiased_cka_of(pair)})


def _add_kernels(
    result: Measured, a: Layer, b: Layer, documents: np.ndarray, settings: config.Measuring
) -> None:
    """Add what needs n x n kernels, of layers of distinct rows whose neighbours are known."""
    result.add(lambda: {"cka_rbf": rbf_cka(a, b)})
    every = np.arange(len(a))
    shuffled = [b.reordered(order) for order in shuffles(documents, _SHUFFLES, settings.seed)]
    for k in settings.k:
        if k >= 2:
            of = partial(cknna_of, rows=every, k=k)
            result.add(lambda k=k, of=of: _with_chance(f"cknna@{k}", of, a, b, shuffled))


def _with_chance(
    name: str, of: Callable[[Layer, Layer], Metric], a: Layer, b: Layer, shuffled: Sequence[Layer]
) -> dict[str, Metric]:
    return {name: replace(of(a, b), chance=float(np.mean([float(of(a, other)) for other in shuffled])))}


def _procrustes(result: Measured, pair: PairMoments, fit: Procrustes) -> dict[str, Metric]:
    result.procrustes = fit
    held = pair.x.held if isinstance(pair, CrossMoments) else len(fit.heldout)
    found = {
        "h_inv": Metric(
            value=fit.value, n=fit.n, definition=fit.definition, chance=fit.floor, warnings=fit.warnings
        ),
        "h_inv_rescaled": Metric(
            value=fit.rescaled,
            n=fit.n,
            definition=H_INV_RESCALED if fit.ceiling == 1 else H_INV_OF_DETERMINED,
            chance=0.0,
        ),
        "procrustes_residual": Metric(
            value=fit.residual, n=held, definition=RESIDUAL, chance=fit.residual_chance
        ),
    }
    if np.isnan(fit.rescaled):
        del found["h_inv_rescaled"]
    if len(fit.row_cosines):
        found["procrustes_cosine"] = Metric(
            value=fit.cosine, n=len(fit.row_cosines), definition=COSINE, chance=0.0
        )
    return found


def _overlap(result: Measured, a: Layer, b: Layer, rows: np.ndarray, k: int, k_max: int) -> dict[str, Metric]:
    overlap = knn_overlap_of(a, b, rows, k, k_max=k_max)
    result.overlaps[k] = overlap
    mutual = Metric(
        value=overlap.mutual, n=overlap.n, definition=overlap.mutual_definition, chance=overlap.mutual_chance
    )
    return {f"knn_jaccard@{k}": overlap, f"knn_mutual@{k}": mutual}


# One model's features


def measure_spectrum(rows: np.ndarray) -> Measured:
    """RankMe in both variants, participation ratio, isotropy and alpha-ReQ of the features of texts (n, D)."""
    return _measured(
        {
            "rankme_sigma": lambda: rankme(rows),
            "rankme_lambda": lambda: rankme(rows, "lambda"),
            "participation_ratio": lambda: participation_ratio(rows),
            "isotropy": lambda: isotropy(rows),
            "alpha": lambda: alpha_req(rows),
        }
    )


def measure_spectrum_of_sums(moments: Moments) -> Measured:
    """Those spectral metrics that running sums give."""
    values, width = moments.eigenvalues(), moments.width
    return _measured(
        {
            "rankme_lambda": lambda: rankme_of(values, moments.n, width, "lambda"),
            "participation_ratio": lambda: participation_of(values, moments.n, width),
            "alpha": lambda: alpha_of(values, moments.n, width),
        }
    )


def _measured(metrics: dict[str, Callable[[], Metric]]) -> Measured:
    result = Measured()
    for name, metric in metrics.items():
        result.add(lambda name=name, metric=metric: {name: metric()})
    result.warnings = list(dict.fromkeys(result.warnings))
    return result


# Words and numbers for files


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
