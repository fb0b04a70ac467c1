"""Any metric with an interval over documents and a null over permuted rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.metrics.cka import unit_layer
from reasoning_embedding.hrsa.metrics.layer import Layer
from reasoning_embedding.hrsa.metrics.neighbours import KnnOverlap, distinct_in_all
from reasoning_embedding.hrsa.metrics.result import Interval, Metric, NullTest, as_rows, same_rows
from reasoning_embedding.hrsa.registry import METRICS, Level, MetricSpec

from .jackknife import debiased_cka_interval
from .neighbour_halves import knn_of_halves
from .resampling import (
    aligned_rows,
    bootstrap_mean,
    bootstrap_similarity,
    halves,
    interval,
    interval_of_halves,
    null_test,
    resampled_counts,
    shuffles,
)

#: Metrics whose bootstrap needs sufficient statistics only, and what they are called there.
_FROM_SUMS = {"linear_cka": "cka", "dimension_wise_correlation": "dimension_correlation"}
#: Metrics that leave every document out once.
_LEAVE_ONE_OUT = {"debiased_linear_cka", "unit_row_cka"}
#: Percentile intervals of fewer documents are too short.
_FEW = 20
#: Fewer documents than this cannot be resampled.
FEWEST = 4
_UNKNOWN = Level("unknown", "a metric from elsewhere", frozenset(), frozenset())


def with_inference(
    metric: Callable[..., Metric],
    x: Any,
    y: Any = None,
    *,
    documents: np.ndarray | None = None,
    null: int = 200,
    bootstrap: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    **options: Any,
) -> Metric:
    """Compute a metric, how far it would move with other documents, and what unrelated rows give.

    Parameters
    ----------
    metric : callable
        A function of this package, or one's own: rows (and rows) to a :class:`Metric`.
    x : array or tensor, shape (n, D_x)
    y : array or tensor, shape (n, D_y), optional
        The same rows in two models; no `y` for metrics of one model, which have no null.
    documents : array, shape (n,), optional
        The document of each row; documents are resampled and shuffled whole. Absent: each row is one.
    null : int
        Permutations B; 0 leaves the null out. The smallest p is 1 / (B + 1).
    bootstrap : int
        Replicates; 0 leaves the interval out.
    seed : int
        Seed of both; intervals of one metric on two pairs of models have matching replicates under one seed.
    level : float
        Of the interval, in (0, 1).
    **options
        Passed to `metric` (its own `seed` keeps its default).

    Returns
    -------
    Metric
        What `metric` gives, with ``interval`` and ``null``; ``chance`` is the null's mean where it had none.

    Raises
    ------
    InputError
        On bad rows (see `metric`), other than n documents, or fewer than four different ones.

    Notes
    -----
    Means over rows (probe accuracy) resample the rows' values; CKA and dimension-wise correlation use sums per
    document; debiased CKA leaves every document out once; the rest are recomputed, B times. Metrics that repeated rows
    spoil (k-NN overlap, CKNNA) are recomputed on both halves of random splits of the documents. The null shuffles
    documents position by position (:func:`.resampling.aligned_rows`). Work on a layer is done once for all permutations.

    Examples
    --------
    >>> from reasoning_embedding import hrsa
    >>> x, noise = np.random.RandomState(0).randn(2, 200, 8)
    >>> found = hrsa.with_inference(hrsa.linear_cka, x, x + noise, null=99)
    >>> print(f"{found.value:.2f} [{found.interval.low:.2f}, {found.interval.high:.2f}], p = {found.null.p:.2f}")
    0.53 [0.50, 0.57], p = 0.01
    """
    job = _Job.of(metric, x, y, documents, options)
    sides, codes = job.sides, job.codes
    result = job.compute(np.arange(len(codes)))
    changes: dict[str, Any] = {}
    if bootstrap:
        changes["interval"] = _interval(job, result, bootstrap, seed, level)
    if null and len(sides) == 2:
        changes["null"] = _null(job, null, seed)
        if result.chance is None:
            changes["chance"] = changes["null"].mean
    count = int(codes.max()) + 1
    if count < _FEW:
        changes["warnings"] = (*result.warnings, f"{count} documents: intervals are too short below {_FEW}")
    return replace(result, **changes)


@dataclass(frozen=True, slots=True)
class _Job:
    """A metric, the rows it is asked about, their documents and its options."""

    spec: MetricSpec
    sides: list[np.ndarray]
    codes: np.ndarray
    options: dict[str, Any]

    @classmethod
    def of(
        cls,
        metric: Callable[..., Metric],
        x: Any,
        y: Any,
        documents: np.ndarray | None,
        options: dict[str, Any],
    ) -> _Job:
        """Check rows and documents, and find what is known of the metric."""
        sides = [as_rows(x, "X")] if y is None else [as_rows(x, "X"), as_rows(y, "Y")]
        same_rows(sides[0], sides[-1])
        spec = METRICS.get(getattr(metric, "__name__", ""))
        if spec is None or spec.function is not metric:
            spec = MetricSpec(metric, _UNKNOWN)
        return cls(spec, sides, _codes(documents, len(sides[0])), options)

    def compute(self, rows: np.ndarray) -> Metric:
        """Compute the metric on some of the rows."""
        options = {"documents": self.codes[rows]} if self.spec.takes_documents else {}
        return self.spec.function(*(side[rows] for side in self.sides), **(options | self.options))


def _codes(documents: np.ndarray | None, n: int) -> np.ndarray:
    """Documents as numbers from 0."""
    if documents is None:
        return np.arange(n)
    names, codes = np.unique(np.asarray(documents), return_inverse=True)
    if codes.shape != (n,) or len(names) < FEWEST:
        raise InputError(
            f"{len(names)} different documents for {codes.size} of {n} rows",
            where="documents",
            todo="name the document of each row; at least four are needed to resample",
        )
    return codes


def _interval(job: _Job, result: Metric, replicates: int, seed: int, level: float) -> Interval:
    if result.row_values is not None and not job.spec.needs_distinct:
        values, rows = result.row_values
        return bootstrap_mean(values, job.codes[rows], replicates=replicates, seed=seed, level=level)
    if job.spec.name in _FROM_SUMS or job.spec.name in _LEAVE_ONE_OUT:
        order = np.argsort(job.codes, kind="stable")
        a, b = (Layer(side[order]) for side in job.sides)
        options: dict[str, Any] = {"replicates": replicates, "seed": seed, "level": level}
        if job.spec.name == "unit_row_cka":
            a, b = unit_layer(a), unit_layer(b)
        if job.spec.name in _LEAVE_ONE_OUT:
            return debiased_cka_interval(a, b, job.codes[order], **options)
        return bootstrap_similarity(a, b, job.codes[order], **options)[_FROM_SUMS[job.spec.name]]
    return _recomputed(job, result, replicates, seed, level)


def recomputed_interval(
    metric: Callable[..., Metric],
    x: Any,
    y: Any,
    result: Metric,
    documents: np.ndarray,
    options: dict[str, Any],
    *,
    bootstrap: int,
    seed: int,
) -> Interval:
    """Interval of the `result` that a metric gives with `options`, computed anew for every replicate.

    The other parameters are those of :func:`with_inference`.
    """
    return _recomputed(_Job.of(metric, x, y, documents, options), result, bootstrap, seed)


def _recomputed(job: _Job, result: Metric, replicates: int, seed: int, level: float = 0.95) -> Interval:
    count = int(job.codes.max()) + 1
    if isinstance(result, KnnOverlap):
        a, b = (Layer(side) for side in job.sides)
        k = job.options.get("k", 10)
        centred = job.options.get("centred", False)
        rows = result.rows
        pairs = knn_of_halves(a, b, rows, job.codes[rows], [k], replicates, seed, centred=centred)[k][:, 0]
        if not len(pairs):
            raise InputError(
                f"half of the documents have too few rows for k = {k} neighbours",
                where="documents",
                todo="give more documents, or a smaller k",
            )
        return interval_of_halves(result.value, pairs, count, level)
    if job.spec.needs_distinct:
        pairs = [
            (float(job.compute(one)), float(job.compute(other)))
            for one, other in halves(job.codes, replicates, seed)
        ]
        return interval_of_halves(result.value, pairs, count, level)
    drawn = (
        np.repeat(np.arange(len(job.codes)), times[job.codes])
        for times in resampled_counts(count, replicates, seed)
    )
    return interval(result.value, np.array([float(job.compute(rows)) for rows in drawn]), level)


def _null(job: _Job, permutations: int, seed: int) -> NullTest:
    """Shuffle documents position by position; what is shuffled is fewer rows where documents differ in length."""
    x, y = job.sides
    of_layers, codes, distance = job.spec.of_layers, job.codes, job.spec.distance
    if of_layers is None:
        rows = aligned_rows(codes)
        x, y, codes = x[rows], y[rows], codes[rows]
        orders = shuffles(codes, permutations, seed)
        value, *values = (
            float(job.spec.function(x, other, **_of_rows(job.options, rows, len(job.codes))))
            for other in (y, *(y[order] for order in orders))
        )
        return null_test(value, values, rows=len(rows), distance=distance)
    a, b = Layer(x, "X"), Layer(y, "Y")
    rows = distinct_in_all([a, b]) if job.spec.needs_distinct else np.arange(len(codes))
    rows = rows[aligned_rows(codes[rows])]
    a, b, codes = a.taken(rows), b.taken(rows), codes[rows]
    options = ({"documents": codes} if job.spec.takes_documents else {}) | job.options
    value = float(
        of_layers(a, b, **options)
    )  # what belongs to one layer is computed before rows are shuffled
    values = [
        float(of_layers(a, b.reordered(order), **options)) for order in shuffles(codes, permutations, seed)
    ]
    return null_test(value, values, rows=len(rows), distance=distance)


def _of_rows(options: dict[str, Any], rows: np.ndarray, n: int) -> dict[str, Any]:
    """Options of some of n rows: what holds one entry a row, such as labels, holds theirs."""
    return {
        name: [value[row] for row in rows]
        if isinstance(value, (list, tuple, np.ndarray)) and len(value) == n
        else value
        for name, value in options.items()
    }
