"""50,000 tokens: sums in one pass against a model's states held whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks import hrsa_reference as reference
from benchmarks.hrsa_data import Size, blocks, now, peak, result, some_pairs, states
from reasoning_embedding.hrsa.metrics.layer import Layer
from reasoning_embedding.hrsa.metrics.neighbours_and_cka import knn_overlap_of
from reasoning_embedding.hrsa.streaming import PairStream, linear_values, streamed_metrics


def bench_long(size: Size, report: Callable[[str], None], repeats: int) -> dict[str, Any]:
    """Correlation, CKA of all pairs and Procrustes of the diagonal; neighbours of the same 1,000 rows on both sides."""
    a, b = states(size, 0), states(size, 1)
    some = some_pairs(size)
    ours, other, values, theirs = [], [], {}, []
    for _ in range(repeats):
        seconds, values = _stream(size)
        ours.append(seconds)
        start = now()
        theirs = [(reference.correlation(a[i], b[j]), reference.careful_cka(a[i], b[j])) for i, j in some]
        pairs = (now() - start) * size.layers**2 / len(some)
        start = now()
        reference.procrustes(a[0], b[0])
        reference.knn_overlap(a[0][:1000], b[0][:1000], 10)
        other.append(pairs + (now() - start) * size.layers)
        report(f"50,000 tokens: {ours[-1][0]:.1f} s, {other[-1][0]:.1f} s")
    difference = max(abs(values[pair] - cka) for pair, (_, cka) in zip(some, theirs, strict=True))
    del a, b
    memory = {"ours": peak(_ours, size), "other": peak(_other, size)}
    return result(
        "hrsa/50k-tokens/reference/fp32",
        ours,
        other,
        size,
        memory=memory,
        largest_difference=float(difference),
    )


def _stream(size: Size) -> tuple[np.ndarray, dict[tuple[int, int], float]]:
    """Seconds of the streaming analysis without those of making the states, and CKA of every pair."""
    every = [(i, j) for i in range(size.layers) for j in range(size.layers)]
    diagonal = [(i, i) for i in range(size.layers)]
    stream, seconds, kept = PairStream(every, diagonal), np.zeros(2), []
    models = [blocks(size, model) for model in (0, 1)]
    while both := [rows for model in models if (rows := next(model, None))]:
        start = now()
        rows = [[torch.from_numpy(layer) for layer in side] for side in both]
        stream.add(rows, torch.arange(len(rows[0][0])) % 5 == 0)
        kept = kept or [[layer[:1000].copy() for layer in side] for side in both]
        seconds += now() - start
        del both, rows  # as a model's states are, before it reads on
    start = now()
    for pair in diagonal:
        streamed_metrics(stream.cross[pair])
    found = {pair: linear_values(stream.cross[pair]).values["cka"][0] for pair in every}
    for x, y in zip(*kept, strict=True):
        knn_overlap_of(Layer(x, dtype=np.float32), Layer(y, dtype=np.float32), np.arange(len(x)), 10)
    return seconds + now() - start, found


def _ours(size: Size) -> Callable[[], Any]:
    return lambda: _stream(size)


def _other(size: Size) -> Callable[[], Any]:
    def hold_and_compare() -> None:
        a, b = states(size, 0), states(size, 1)
        reference.correlation(a[0], b[0])
        reference.careful_cka(a[0], b[0])

    return hold_and_compare
