"""One metric of all pairs of layers against numpy: CKA and neighbours with a layer's work done once, singular values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import hrsa_reference as reference
from benchmarks.hrsa_data import REPEATS, Size, now, peak, result, some_pairs, states
from benchmarks.hrsa_reference import Layers
from reasoning_embedding.hrsa.heat_maps import cka_map
from reasoning_embedding.hrsa.metrics.distances import procrustes_distance_of
from reasoning_embedding.hrsa.metrics.layer import Layer
from reasoning_embedding.hrsa.metrics.neighbours_and_cka import knn_overlap_of

Report = Callable[[str], None]
_K = 10


def bench_cached(size: Size, report: Report) -> Iterator[dict[str, Any]]:
    """CKA and k-NN overlap of every pair of layers, against numpy that does the work on one layer once."""
    a, b = states(size, 0), states(size, 1)
    for name, ours, other, memory in (
        ("cka", our_cka, reference.cached_cka, True),
        ("knn", our_overlaps, reference.cached_overlaps, False),
    ):
        times: list[list[np.ndarray]] = [[], []]
        found: list[np.ndarray] = []
        for _ in range(REPEATS):
            found = []
            for side, compute in zip(times, (ours, other), strict=True):
                start = now()
                found.append(compute(a, b))
                side.append(now() - start)
            report(
                f"{name} against numpy with per-layer work cached: {times[0][-1][0]:.2f} s, {times[1][-1][0]:.2f} s"
            )
        peaks = {"ours": peak(_Alone(ours), size), "other": peak(_Alone(other), size)} if memory else None
        difference = float(np.abs(found[0] - found[1]).max())
        yield result(
            f"hrsa/{name}/numpy-cached/fp32", *times, size, memory=peaks, largest_difference=difference
        )


def bench_distance(size: Size, report: Report) -> dict[str, Any]:
    """Procrustes distance of every pair of layers wider than they have rows, against D x D singular values a pair.

    ``numpy_ratio`` is that to singular values by numpy's own LAPACK, in processor seconds of one pair.
    """
    a, b = states(size, 0), states(size, 1)
    some = some_pairs(size)
    ours, other, mine, theirs = [], [], np.empty(0), []
    for _ in range(REPEATS):
        start = now()
        mine = our_distances(a, b)
        ours.append(now() - start)
        start = now()
        theirs = [reference.procrustes_distance(a[i], b[j]) for i, j in some]
        other.append((now() - start) * size.layers**2 / len(some))
        report(f"Procrustes distance, D = {size.width}: {ours[-1][0]:.2f} s, {other[-1][0]:.2f} s")
    difference = max(abs(mine[pair] - value) for pair, value in zip(some, theirs, strict=True))
    start = now()
    reference.procrustes_distance(a[0], b[0], lambda cross: np.linalg.svd(cross, compute_uv=False))
    alone = (now() - start)[1] * size.layers**2 / np.median(ours, axis=0)[1]
    name = f"hrsa/procrustes-distance/d{size.width}/fp32"
    return result(
        name, ours, other, size, largest_difference=float(difference), numpy_ratio=round(float(alone), 4)
    )


def our_cka(a: Layers, b: Layers) -> np.ndarray:
    """CKA of every pair, from tiles of Gram matrices."""
    return cka_map(*_layers(a, b), gram=True)


def our_overlaps(a: Layers, b: Layers) -> np.ndarray:
    """k-NN overlap of every pair; neighbours once a layer."""
    x, y = _layers(a, b)
    rows = np.arange(len(a[0]))
    return np.array([[knn_overlap_of(p, q, rows, _K).value for q in y] for p in x])


def our_distances(a: Layers, b: Layers) -> np.ndarray:
    """Procrustes distance of every pair, from n x n products where dimensions outnumber rows."""
    x, y = _layers(a, b)
    return np.array([[procrustes_distance_of(p, q).value for q in y] for p in x])


def _layers(a: Layers, b: Layers) -> list[list[Layer]]:
    return [[Layer(rows, dtype=np.float32) for rows in side] for side in (a, b)]


class _Alone:
    """What memory is measured of: a function of two models' states, in a process of its own."""

    def __init__(self, compute: Callable[[Layers, Layers], np.ndarray]) -> None:
        self.compute = compute

    def __call__(self, size: Size) -> Callable[[], Any]:
        a, b = states(size, 0), states(size, 1)
        return lambda: self.compute(a, b)
