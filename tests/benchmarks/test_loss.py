"""The benchmark of the loss compares the same loss; its speed is not tested."""

from __future__ import annotations

import pytest

from benchmarks import loss as bench
from reasoning_embedding.training.activation_memory import LiveBytes


def test_all_sides_compute_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SHAPES", (bench.BatchShape(24, 8),))
    monkeypatch.setattr(bench, "CHUNKS", (7, 16))
    monkeypatch.setattr(
        bench,
        "_peak_memory",
        lambda side, *rest: {"ours": 10.0, "st-mnrl": 200.0, "st-cached-best": 40.0}[side],
    )
    lines: list[str] = []
    plain, cached, scale = bench.bench_loss(report=lines.append)
    assert (plain["name"], cached["name"]) == ("loss/24x48/st-mnrl/fp32", "loss/24x48/st-cached-best/fp32")
    for result in (plain, cached):
        assert 0 < result["largest_difference"] < 1e-5
        assert result["ratio"] == pytest.approx(result["other"] / result["ours"], abs=1e-4)
        assert len(result["seconds"]["ours"]) == len(result["seconds"]["other"]) == bench.REPEATS
    assert (plain["memory_ratio"], cached["memory_ratio"]) == (20.0, 4.0)
    assert cached["settings"]["mini_batch_size"] in (7, 16)
    assert plain["settings"]["mini_batch_size"] is None
    assert "fastest at a chunk of" in lines[0]
    assert scale["name"] == "loss/65536x262144/scores/fp32"
    assert (scale["other"], scale["ratio"]) == (65536, 6553.6), "MiB of float32 scores, over 10"
    assert scale["settings"]["ranks"] == 256, "each rank has one tile of rows"


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_what_a_large_batch_takes_is_vectors_and_one_tile(ranks: int) -> None:
    shape = bench.BatchShape(4 * bench.TILE_ROWS, 32, 4)
    columns, stage = shape.columns(), bench._stage("ours", bench.TILE_ROWS, ranks)
    with LiveBytes() as live:
        stage(columns)
    tile = 4 * bench.TILE_ROWS * 4 * shape.queries
    assert live.peak == pytest.approx(bench._held(shape) + tile, rel=0.1), "whatever the number of tiles"
    assert live.peak < bench._held(shape) + 2 * tile < 4 * tile, "the control: all scores are four tiles"
