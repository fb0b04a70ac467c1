"""The benchmark of the loss compares the same loss; its speed is not tested."""

from __future__ import annotations

import pytest

from reasoning_embedding.losses import bench_loss as bench


def test_all_sides_compute_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SHAPES", (bench.Shape(24, 8),))
    monkeypatch.setattr(bench, "CHUNKS", (7, 16))
    monkeypatch.setattr(
        bench,
        "_peak_memory",
        lambda side, *rest: {"ours": 10.0, "st-mnrl": 200.0, "st-cached-best": None}[side],
    )
    lines: list[str] = []
    plain, cached = bench.bench_loss(report=lines.append)
    assert (plain["name"], cached["name"]) == ("loss/24x48/st-mnrl/fp32", "loss/24x48/st-cached-best/fp32")
    for result in (plain, cached):
        assert 0 < result["largest_difference"] < 1e-5
        assert result["ratio"] == pytest.approx(result["other"] / result["ours"], abs=1e-4)
        assert len(result["seconds"]["ours"]) == len(result["seconds"]["other"]) == bench.REPEATS
    assert (plain["memory_ratio"], cached["memory_ratio"]) == (20.0, None)
    assert cached["settings"]["mini_batch_size"] in (7, 16)
    assert plain["settings"]["mini_batch_size"] is None
    assert "fastest at a chunk of" in lines[0]
