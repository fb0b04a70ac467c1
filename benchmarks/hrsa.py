"""Speed and memory of HRSA against the same five metrics as textbooks and released code compute them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import hrsa_reference as reference
from benchmarks.hrsa_cached import bench_cached, bench_distance
from benchmarks.hrsa_data import REPEATS, Size, now, result, some_pairs, states
from benchmarks.hrsa_long import bench_long
from benchmarks.hrsa_reference import Layers
from reasoning_embedding.hrsa.heat_maps import cka_map, correlation_map
from reasoning_embedding.hrsa.metrics.layer import Layer
from reasoning_embedding.hrsa.metrics.neighbours_and_cka import knn_overlap_of
from reasoning_embedding.hrsa.metrics.probe_transfer import linear_probe_transfer
from reasoning_embedding.hrsa.metrics.procrustes import procrustes_of

Report = Callable[[str], None]
FULL = Size(28, 2000, 1024, 1000, 12)
QUICK = Size(8, 1000, 512, 300, 6)
DISTANCE_FULL = (Size(8, 1000, 2048, 0, 2), Size(8, 1000, 4096, 0, 1))
DISTANCE_QUICK = (Size(3, 500, 1024, 0, 1),)
LONG_FULL = Size(8, 50_000, 256, 0, 6)
LONG_QUICK = Size(3, 50_000, 256, 0, 3)


def bench_hrsa(*, quick: bool = False, report: Report = lambda line: None) -> Iterator[dict[str, Any]]:
    """Compare the whole analysis, single metrics of all pairs of layers, and 50,000 tokens.

    Parameters
    ----------
    quick : bool
        Smaller models, and the 50,000 tokens once.
    report : callable
        Takes a line of progress.

    Yields
    ------
    dict
        ``name``, ``ours`` and ``other`` in seconds, their ``ratio`` (other over ours), ``memory_ratio`` (of peak
        memory above a process that has loaded its libraries; None where not measured) and settings.

    Notes
    -----
    States are Gaussian in float32, half of them shared. The other side's time is that of some pairs of layers,
    scaled to all. ``reference``: the definitions as they read, every pair anew: CKA through ``HKH``, neighbours by
    sorting n x n similarities (at 50,000 tokens, where n x n matrices do not fit, D x D products of every pair
    centred anew). ``released``: the algorithm of the code released with the method, which for CKA centres once
    a layer and compares neighbours along the diagonal only. ``numpy-cached``: numpy that keeps every layer's
    Gram matrix, or neighbours. ``procrustes-distance``: the singular values of a D x D product a pair. The linear
    probe is the same on both sides, and so is the library that multiplies and factorises matrices. Here singular
    vectors and neighbours are float64, on the other side float32 as the states are.
    """
    size = QUICK if quick else FULL
    a, b = states(size, 0), states(size, 1)
    for name in ("reference", "released"):
        yield _five_metrics(name, a, b, size, report)
    del a, b
    yield from bench_cached(size, report)
    for wide in DISTANCE_QUICK if quick else DISTANCE_FULL:
        yield bench_distance(wide, report)
    yield bench_long(LONG_QUICK, report, 1) if quick else bench_long(LONG_FULL, report, REPEATS)


def analysis(a: Layers, b: Layers, labels: np.ndarray, texts: int, *, every_pair: bool) -> dict[str, Any]:
    """Compute the five metrics as this package does; neighbours of every pair at k = 10, or of the diagonal."""
    x, y = ([Layer(rows, dtype=np.float32) for rows in side] for side in (a, b))
    rows, diagonal = np.arange(len(a[0])), list(zip(x, y, strict=True))
    if every_pair:
        near = [[knn_overlap_of(p, q, rows, 10).value for q in y] for p in x]
    else:
        near = [[knn_overlap_of(p, q, rows, k, k_max=50).value for k in (5, 10, 50)] for p, q in diagonal]
    return {
        "cka": cka_map(x, y),
        "correlation": correlation_map(x, y),
        "knn": np.array(near),
        "h_inv": [procrustes_of(p, q, heldout=0).value for p, q in diagonal],
        "probe": linear_probe_transfer(a[-1][:texts], b[-1][:texts], labels).value,
    }


def _five_metrics(name: str, a: Layers, b: Layers, size: Size, report: Report) -> dict[str, Any]:
    labels = (a[-1][: size.texts, :4]).argmax(axis=1)
    some = some_pairs(size)
    ours, other = [], []
    found: dict[str, Any] = {}
    for _ in range(REPEATS):
        start = now()
        found = analysis(a, b, labels, size.texts, every_pair=name == "reference")
        ours.append(now() - start)
        cka, seconds = (_textbook if name == "reference" else _released)(a, b, labels, size, some)
        other.append(seconds)
        report(f"five metrics against {name}: {ours[-1][0]:.1f} s, {other[-1][0]:.1f} s")
    difference = max(abs(found["cka"][pair] - value) for pair, value in zip(some, cka, strict=True))
    return result(f"hrsa/five-metrics/{name}/fp32", ours, other, size, largest_difference=float(difference))


def _textbook(
    a: Layers, b: Layers, labels: np.ndarray, size: Size, some: list[tuple[int, int]]
) -> tuple[list[float], np.ndarray]:
    """CKA of some pairs, and the seconds that all five metrics of all pairs would take."""
    start = now()
    cka = []
    for i, j in some:
        reference.correlation(a[i], b[j])
        cka.append(reference.textbook_cka(a[i], b[j]))
        reference.knn_overlap(a[i], b[j], 10)
    pairs = (now() - start) * size.layers**2 / len(some)
    return cka, pairs + _diagonal(a, b, labels, size, some)


def _released(
    a: Layers, b: Layers, labels: np.ndarray, size: Size, some: list[tuple[int, int]]
) -> tuple[list[float], np.ndarray]:
    """As :func:`_textbook`, of the released algorithm."""
    once = now()
    reference.released_cka(a, b, [])
    once = now() - once
    start = now()
    cka = reference.released_cka(a, b, some)
    pairs = now() - start - once
    start = now()
    for i, j in some:
        reference.correlation(a[i], b[j])
    pairs += now() - start
    start = now()
    for i, _ in some[:2]:
        for side in (a, b):
            reference.dense_neighbours(side[i], 50)
    neighbours = (now() - start) * size.layers / len(some[:2])
    scaled = once + np.maximum(pairs, 0) * size.layers**2 / len(some)
    return cka, scaled + neighbours + _diagonal(a, b, labels, size, some)


def _diagonal(
    a: Layers, b: Layers, labels: np.ndarray, size: Size, some: list[tuple[int, int]]
) -> np.ndarray:
    """Seconds of Procrustes along the diagonal, and of one probe."""
    start = now()
    for i, _ in some[:2]:
        reference.procrustes(a[i], b[i])
    procrustes = (now() - start) * size.layers / len(some[:2])
    start = now()
    linear_probe_transfer(a[-1][: size.texts], b[-1][: size.texts], labels)
    return procrustes + now() - start
