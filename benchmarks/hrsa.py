"""Speed and memory of HRSA against the same metrics as textbooks and released code compute them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from benchmarks import numpy_metrics as reference
from benchmarks.measure import (
    REPEATS,
    added_mib,
    cpu_seconds,
    in_new_process,
    now,
    take_turns,
    timed,
    wall_seconds,
)
from benchmarks.numpy_metrics import Layers
from reasoning_embedding.hrsa.measure import measure_sums
from reasoning_embedding.hrsa.metrics.cka import cka_map, cka_of
from reasoning_embedding.hrsa.metrics.correlation import correlation_map, correlation_of
from reasoning_embedding.hrsa.metrics.distances import procrustes_distance
from reasoning_embedding.hrsa.metrics.layer import Layer
from reasoning_embedding.hrsa.metrics.neighbours import knn_overlap_of
from reasoning_embedding.hrsa.metrics.probe_transfer import linear_probe_transfer
from reasoning_embedding.hrsa.metrics.procrustes import orthogonal_procrustes
from reasoning_embedding.hrsa.moments import PairSums
from reasoning_embedding.progress import Report


@dataclass(frozen=True)
class Size:
    """Layers of each model, rows, dimensions; labelled texts of the probe."""

    layers: int
    rows: int
    width: int
    texts: int


#: As many layers of as many dimensions as SmolLM2-135M has.
FULL = Size(30, 2000, 576, 1000)
QUICK = Size(8, 1000, 512, 300)
DISTANCE_FULL = (Size(3, 1000, 2048, 0), Size(2, 1000, 4096, 0))
DISTANCE_QUICK = (Size(3, 500, 1024, 0),)
LONG_FULL = Size(8, 50_000, 256, 0)
LONG_QUICK = Size(3, 50_000, 256, 0)
#: Rows of a block of the streaming pass.
BLOCK = 1024
_K = 10


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
        ``name``, ``ours`` and ``other`` in seconds of processors (medians), their ``ratio`` (other over ours),
        ``memory_ratio`` (of peak memory above a process that has loaded its libraries; None where not measured) and
        settings; ``wall_ratio`` and all times beside them.

    Notes
    -----
    States are Gaussian in float32, half of them shared. Both sides take turns and compute all pairs of layers; the
    ratio is of processor seconds, which a busy machine changes less than those of the clock. ``reference``: the
    definitions as they read, every pair anew, of the small models: CKA through ``HKH``, neighbours by sorting n x n
    similarities (at 50,000 tokens, where n x n matrices do not fit, D x D products of every pair centred anew).
    ``released``: the algorithm of the code released with the method, which for CKA centres once a layer and compares
    neighbours along the diagonal only. ``numpy-cached``: numpy that keeps every layer's Gram matrix, or neighbours.
    ``procrustes-distance``: the singular values of a D x D product a pair. The linear probe is the same on both sides,
    and so is the library that multiplies and factorises matrices. Here singular vectors are float64 and neighbours
    those of float64, on the other side float32 as the states are.
    """
    size = QUICK if quick else FULL
    yield _five_metrics("reference", states(QUICK, 0), states(QUICK, 1), QUICK, report)
    a, b = states(size, 0), states(size, 1)
    yield _five_metrics("released", a, b, size, report)
    yield _cached("cka", our_cka, reference.cached_cka, a, b, size, report, memory=True)
    yield _cached("knn", our_overlaps, reference.cached_overlaps, a, b, size, report, memory=False)
    del a, b
    for wide in DISTANCE_QUICK if quick else DISTANCE_FULL:
        yield _distance(wide, report)
    yield _long(LONG_QUICK, report, 1) if quick else _long(LONG_FULL, report, REPEATS)


# --- states and records


def states(size: Size, model: int) -> list[np.ndarray]:
    """States of every layer of a model, float32 (rows, width)."""
    return [np.concatenate(blocks) for blocks in zip(*blocks(size, model), strict=True)]


def blocks(size: Size, model: int) -> Iterator[list[np.ndarray]]:
    """Rows of every layer, a block at a time; half of each is the same in both models."""
    for number, start in enumerate(range(0, size.rows, BLOCK)):
        shape = min(BLOCK, size.rows - start), size.width
        shared = np.random.default_rng([number, 9]).standard_normal(shape, dtype=np.float32)
        own = np.random.default_rng([number, model])
        yield [shared + own.standard_normal(shape, dtype=np.float32) for _ in range(size.layers)]


def every_pair(size: Size) -> list[tuple[int, int]]:
    """All pairs of a layer of the first and a layer of the second model."""
    return [(i, j) for i in range(size.layers) for j in range(size.layers)]


def _record(
    name: str,
    ours: list[np.ndarray],
    other: list[np.ndarray],
    size: Size,
    *,
    memory: dict[str, float] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """One comparison as the benchmarks print it, from times of both sides and their peaks of memory."""
    mine, theirs = np.median(ours, axis=0), np.median(other, axis=0)
    return {
        "name": name,
        "ours": round(float(mine[1]), 4),
        "other": round(float(theirs[1]), 4),
        "ratio": round(float(theirs[1] / mine[1]), 4),
        "unit": "processor seconds",
        "memory_ratio": None if memory is None else round(memory["other"] / memory["ours"], 4),
        "peak_mib": memory,
        "seconds": {"ours": wall_seconds(ours), "other": wall_seconds(other)},
        "cpu_seconds": {"ours": cpu_seconds(ours), "other": cpu_seconds(other)},
        "wall_ratio": round(float(theirs[0] / mine[0]), 4),
        "settings": asdict(size),
        **more,
    }


def _peak(side: str, size: Size) -> float:
    """MiB that one side of a comparison adds to a process of its own that has loaded its libraries."""
    return in_new_process(_added, side, size)


def _added(side: str, size: Size) -> float:
    prepare = _SIDES[side]
    prepare(Size(2, 1200, 16, 0))()  # libraries allocate what they keep
    return max(added_mib(prepare(size)), 0.1)


# --- five metrics, as an analysis computes them


def analysis(
    a: Layers, b: Layers, labels: np.ndarray, texts: int, *, overlaps_of_all: bool
) -> dict[str, Any]:
    """Compute the five metrics as this package does; neighbours of every pair at k = 10, or of the diagonal."""
    x, y = _layers(a, b)
    rows, diagonal = np.arange(len(a[0])), list(zip(x, y, strict=True))
    if overlaps_of_all:
        near = [[knn_overlap_of(p, q, rows, _K).value for q in y] for p in x]
    else:
        near = [[knn_overlap_of(p, q, rows, k, k_max=50).value for k in (5, 10, 50)] for p, q in diagonal]
    return {
        "cka": cka_map(x, y),
        "correlation": correlation_map(x, y),
        "knn": np.array(near),
        "h_inv": [orthogonal_procrustes(p, q, heldout=0).value for p, q in diagonal],
        "probe": linear_probe_transfer(a[-1][:texts], b[-1][:texts], labels).value,
    }


def _layers(a: Layers, b: Layers) -> list[list[Layer]]:
    return [[Layer(rows, dtype=np.float32) for rows in model] for model in (a, b)]


def _five_metrics(name: str, a: Layers, b: Layers, size: Size, report: Report) -> dict[str, Any]:
    labels = (a[-1][: size.texts, :4]).argmax(axis=1)
    other = _textbook if name == "reference" else _released
    turns = take_turns(
        {
            "ours": lambda: timed(
                lambda: analysis(a, b, labels, size.texts, overlaps_of_all=name == "reference")
            ),
            "other": lambda: timed(lambda: other(a, b, labels, size)),
        },
        repeats=REPEATS,
    )
    ours, found = _columns(turns["ours"])
    theirs, cka = _columns(turns["other"])
    report(f"five metrics against {name}: {ours[-1][1]:.1f} s, {theirs[-1][1]:.1f} s of processors")
    difference = max(
        abs(found[-1]["cka"][pair] - value) for pair, value in zip(every_pair(size), cka[-1], strict=True)
    )
    return _record(f"hrsa/five-metrics/{name}/fp32", ours, theirs, size, largest_difference=float(difference))


def _columns(turns: list[tuple[np.ndarray, Any]]) -> tuple[list[np.ndarray], list[Any]]:
    return [seconds for seconds, _ in turns], [found for _, found in turns]


def _textbook(a: Layers, b: Layers, labels: np.ndarray, size: Size) -> list[float]:
    """All five metrics of all pairs, each pair anew; returns CKA."""
    cka = []
    for i, j in every_pair(size):
        reference.correlation(a[i], b[j])
        cka.append(reference.textbook_cka(a[i], b[j]))
        reference.knn_overlap(a[i], b[j], _K)
    _diagonal(a, b, labels, size)
    return cka


def _released(a: Layers, b: Layers, labels: np.ndarray, size: Size) -> list[float]:
    """As :func:`_textbook`, by the released algorithm."""
    cka = reference.released_cka(a, b, every_pair(size))
    for i, j in every_pair(size):
        reference.correlation(a[i], b[j])
    for layers in zip(a, b, strict=True):
        near = [reference.dense_neighbours(layer, 50) for layer in layers]
        for k in (5, 10, 50):
            reference.overlap_of(near[0][:, :k], near[1][:, :k])
    _diagonal(a, b, labels, size)
    return cka


def _diagonal(a: Layers, b: Layers, labels: np.ndarray, size: Size) -> None:
    """Procrustes along the diagonal, and one probe."""
    for x, y in zip(a, b, strict=True):
        reference.procrustes(x, y)
    linear_probe_transfer(a[-1][: size.texts], b[-1][: size.texts], labels)


# --- one metric of all pairs of layers, against numpy that does the work on one layer once


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
    return np.array([[procrustes_distance(p, q).value for q in y] for p in x])


def _cached(
    name: str,
    ours: Callable[[Layers, Layers], np.ndarray],
    other: Callable[[Layers, Layers], np.ndarray],
    a: Layers,
    b: Layers,
    size: Size,
    report: Report,
    *,
    memory: bool,
) -> dict[str, Any]:
    turns = take_turns(
        {"ours": lambda: timed(lambda: ours(a, b)), "other": lambda: timed(lambda: other(a, b))},
        repeats=REPEATS,
    )
    mine, theirs = _columns(turns["ours"]), _columns(turns["other"])
    report(
        f"{name} against numpy with per-layer work cached: {mine[0][-1][1]:.2f} s, {theirs[0][-1][1]:.2f} s of processors"
    )
    peaks = {side: _peak(f"{side}-{name}", size) for side in ("ours", "other")} if memory else None
    difference = float(np.abs(mine[1][-1] - theirs[1][-1]).max())
    return _record(
        f"hrsa/{name}/numpy-cached/fp32",
        mine[0],
        theirs[0],
        size,
        memory=peaks,
        largest_difference=difference,
    )


def _distance(size: Size, report: Report) -> dict[str, Any]:
    """Procrustes distance of every pair of layers wider than they have rows, against D x D singular values a pair.

    ``numpy_ratio`` is that to singular values by numpy's own LAPACK, in processor seconds, from one pair.
    """
    a, b = states(size, 0), states(size, 1)
    every = every_pair(size)
    turns = take_turns(
        {
            "ours": lambda: timed(lambda: our_distances(a, b)),
            "other": lambda: timed(lambda: [reference.procrustes_distance(a[i], b[j]) for i, j in every]),
        },
        repeats=REPEATS,
        once=("other",) if size.width > 1024 else (),
    )
    (ours, mine), (other, theirs) = _columns(turns["ours"]), _columns(turns["other"])
    report(f"Procrustes distance, D = {size.width}: {ours[-1][1]:.2f} s, {other[-1][1]:.2f} s of processors")
    difference = max(abs(mine[-1][pair] - value) for pair, value in zip(every, theirs[-1], strict=True))
    by_numpy, _ = timed(
        lambda: reference.procrustes_distance(a[0], b[0], lambda x: np.linalg.svd(x, compute_uv=False))
    )
    return _record(
        f"hrsa/procrustes-distance/d{size.width}/fp32",
        ours,
        other,
        size,
        largest_difference=float(difference),
        numpy_ratio=round(float(by_numpy[1] * len(every) / np.median(ours, axis=0)[1]), 4),
    )


# --- 50,000 tokens: sums in one pass against both models' states in memory


def _long(size: Size, report: Report, repeats: int) -> dict[str, Any]:
    """Correlation, CKA of all pairs and Procrustes of the diagonal; neighbours of the same 1,000 rows on both sides."""
    turns = _long_turns(size, repeats)
    (ours, mine), (theirs, cka) = _columns(turns["ours"]), _columns(turns["other"])
    report(f"50,000 tokens: {ours[-1][1]:.1f} s, {theirs[-1][1]:.1f} s of processors")
    difference = max(abs(mine[-1][pair] - value) for pair, value in cka[-1].items())
    return _record(
        "hrsa/50k-tokens/reference/fp32",
        ours,
        theirs,
        size,
        memory={side: _peak(f"{side}-50k", size) for side in ("ours", "other")},
        largest_difference=float(difference),
    )


def _long_turns(size: Size, repeats: int) -> dict[str, list[Any]]:
    """Seconds and CKA of both sides; the states live no longer than this call, which memory is measured after."""
    a, b = states(size, 0), states(size, 1)

    def other() -> tuple[np.ndarray, dict[tuple[int, int], float]]:
        start = now()
        cka = {}
        for i, j in every_pair(size):
            reference.correlation(a[i], b[j])
            cka[i, j] = reference.careful_cka(a[i], b[j])
        for x, y in zip(a, b, strict=True):
            reference.procrustes(x, y)
            reference.knn_overlap(x[:1000], y[:1000], _K)
        return now() - start, cka

    return take_turns({"ours": lambda: _stream(size), "other": other}, repeats=repeats)


def _stream(size: Size) -> tuple[np.ndarray, dict[tuple[int, int], float]]:
    """Seconds of the streaming analysis without those of making the states, and CKA of every pair."""
    every = every_pair(size)
    diagonal = [(i, i) for i in range(size.layers)]
    stream, seconds, kept = PairSums(every, diagonal), np.zeros(2), []
    models = [blocks(size, model) for model in (0, 1)]
    while both := [rows for model in models if (rows := next(model, None))]:
        start = now()
        rows = [[torch.from_numpy(layer) for layer in model] for model in both]
        stream.add(rows, torch.arange(len(rows[0][0])) % 5 == 0)
        kept = kept or [[layer[:1000].copy() for layer in model] for model in both]
        seconds += now() - start
        del both, rows  # as a model's states are, before it reads on
    start = now()
    for pair in diagonal:
        measure_sums(stream.cross[pair])
    found = {}
    for pair in every:
        correlation_of(stream.cross[pair])
        found[pair] = cka_of(stream.cross[pair]).value
    for x, y in zip(*kept, strict=True):
        knn_overlap_of(Layer(x, dtype=np.float32), Layer(y, dtype=np.float32), np.arange(len(x)), _K)
    return seconds + now() - start, found


# --- what memory is counted of


def _of_states(compute: Callable[[Layers, Layers], Any]) -> Callable[[Size], Callable[[], Any]]:
    """What `compute` takes beyond the states of both models."""

    def prepare(size: Size) -> Callable[[], Any]:
        a, b = states(size, 0), states(size, 1)
        return lambda: compute(a, b)

    return prepare


def _all_in_memory(size: Size) -> Callable[[], Any]:
    def compare() -> None:
        a, b = states(size, 0), states(size, 1)
        reference.correlation(a[0], b[0])
        reference.careful_cka(a[0], b[0])

    return compare


#: Side and comparison -> what prepares a call whose memory is counted.
_SIDES: dict[str, Callable[[Size], Callable[[], Any]]] = {
    "ours-cka": _of_states(our_cka),
    "other-cka": _of_states(reference.cached_cka),
    "ours-50k": lambda size: lambda: _stream(size),
    "other-50k": _all_in_memory,
}
