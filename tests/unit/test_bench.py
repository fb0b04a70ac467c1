"""The benchmark compares like with like and says what it measured; speed itself is not tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from reasoning_embedding.cli.main import main
from reasoning_embedding.errors import InputError
from reasoning_embedding.evaluation import bench_encode as bench


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REASONING_EMBEDDING_DATA", raising=False)
    monkeypatch.setattr(bench, "BATCH_SIZES", (1, 4))
    monkeypatch.setattr(bench, "PACK_TOKENS", (256,))
    monkeypatch.setattr(bench, "REPEATS", 1)
    monkeypatch.setattr(bench, "DTYPES", {"fp32": torch.float32})
    monkeypatch.setattr(bench, "_generated", lambda count: ["red cat", "a blue fish eats", "moon " * 600])
    monkeypatch.setattr(bench, "_peak_memory", lambda side, *rest: {"ours": 50.0, "other": 100.0}[side])


@pytest.mark.usefixtures("small")
def test_both_sides_encode_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as done:
        main(["bench", "encode", "--json", "--quick", "--output", str(tmp_path / "record.json")])
    assert not done.value.code
    out = capsys.readouterr()
    [line] = out.out.splitlines()
    result = json.loads(line)
    assert json.loads((tmp_path / "record.json").read_text()) == [result]
    assert "generated: 3 texts" in out.err
    assert result["name"] == "encode/generated/st-best/fp32"
    assert result["largest_difference"] < 1e-5
    assert 512 < result["tokens"] < 540, "the long text is cut at 512 tokens"
    assert set(result["sweeps"]["other"]) == {"1", "4"}
    seconds = result["seconds"]
    assert result["ours"] == pytest.approx(result["tokens"] / seconds["ours"][0], rel=0.01)
    assert result["ratio"] == pytest.approx(seconds["other"][0] / seconds["ours"][0], rel=0.01)
    assert (result["unit"], result["memory_ratio"]) == ("tokens/s", 0.5)
    assert {"cpu", "cores", "threads", "gpu"} == set(result["hardware"])
    assert "torch" in result["versions"]


def test_a_folder_without_the_corpora_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REASONING_EMBEDDING_DATA", str(tmp_path))
    with pytest.raises(InputError, match="no such corpus") as error:
        next(bench.bench_encode(quick=True))
    assert "cranfield" in str(error.value.where)


def test_generated_texts_are_the_same_and_of_many_lengths() -> None:
    texts = bench._generated(50)
    assert texts == bench._generated(50)
    lengths = sorted(len(text.split()) for text in texts)
    assert lengths[-1] > 4 * lengths[0]


def test_records_are_results() -> None:
    folder = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "records"
    records = [row for path in folder.glob("encode*.json") for row in json.loads(path.read_text())]
    assert records
    for row in records:
        assert {"name", "ours", "other", "ratio", "unit", "versions", "hardware"} <= row.keys()
        assert row["ratio"] == pytest.approx(row["ours"] / row["other"], rel=1e-3)
