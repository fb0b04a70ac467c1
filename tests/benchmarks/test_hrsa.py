"""The HRSA benchmark compares equal numbers; nothing is timed here."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import hrsa as bench_hrsa
from benchmarks import numpy_metrics


@pytest.fixture
def small(monkeypatch):
    size = bench_hrsa.Size(3, 120, 16, 80)
    for name in ("QUICK", "LONG_QUICK"):
        monkeypatch.setattr(bench_hrsa, name, size)
    monkeypatch.setattr(bench_hrsa, "DISTANCE_QUICK", (bench_hrsa.Size(2, 20, 32, 0),))
    monkeypatch.setattr(bench_hrsa, "REPEATS", 1)

    def peak(side: str, size: bench_hrsa.Size) -> float:
        bench_hrsa._SIDES[side](size)()  # what memory is counted of runs, at least
        return {"ours": 1.0, "other": 2.0}[side.partition("-")[0]]

    monkeypatch.setattr(bench_hrsa, "_peak", peak)
    # The same on both sides, and slow.
    monkeypatch.setattr(bench_hrsa, "linear_probe_transfer", lambda *_: SimpleNamespace(value=0.5))
    return size


def test_every_comparison_is_of_equal_numbers(small):
    lines: list[str] = []
    found = {result["name"]: result for result in bench_hrsa.bench_hrsa(quick=True, report=lines.append)}
    assert list(found) == [
        "hrsa/five-metrics/reference/fp32",
        "hrsa/five-metrics/released/fp32",
        "hrsa/cka/numpy-cached/fp32",
        "hrsa/knn/numpy-cached/fp32",
        "hrsa/procrustes-distance/d32/fp32",
        "hrsa/50k-tokens/reference/fp32",
    ]
    for result in found.values():
        assert result["largest_difference"] < (0.01 if "/knn/" in result["name"] else 1e-5)  # ties in float32
        assert min(result["ratio"], result["wall_ratio"]) > 0
    assert found["hrsa/50k-tokens/reference/fp32"]["memory_ratio"] == 2.0
    assert found["hrsa/five-metrics/reference/fp32"]["memory_ratio"] is None
    assert found["hrsa/procrustes-distance/d32/fp32"]["numpy_ratio"] > 0
    assert len(lines) == 6


def test_the_references_agree_with_each_other(small):
    a, b = (bench_hrsa.states(small, model) for model in (0, 1))
    pairs = [(i, j) for i in range(3) for j in range(3)]
    cached = numpy_metrics.cached_cka(a, b)
    released = numpy_metrics.released_cka(a, b, pairs)
    for (i, j), value in zip(pairs, released, strict=True):
        assert value == pytest.approx(cached[i, j], abs=1e-5)
        assert numpy_metrics.textbook_cka(a[i], b[j]) == pytest.approx(value, abs=1e-5)
        assert numpy_metrics.careful_cka(a[i], b[j]) == pytest.approx(value, abs=1e-5)
    labels = np.arange(small.texts) % 3
    ours = bench_hrsa.analysis(a, b, labels, small.texts, overlaps_of_all=True)
    assert ours["h_inv"][0] == pytest.approx(numpy_metrics.procrustes(a[0], b[0])[0], abs=1e-4)
    assert ours["knn"][0][1] == pytest.approx(numpy_metrics.knn_overlap(a[0], b[1], 10), abs=0.01)
    assert ours["correlation"][2][0] == pytest.approx(numpy_metrics.correlation(a[2], b[0]), abs=1e-5)
