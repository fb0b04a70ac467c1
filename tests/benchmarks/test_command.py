"""The benchmark compares like with like and says what it measured; speed itself is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from benchmarks import encode as bench
from benchmarks import start as _bench_start
from benchmarks.__main__ import BENCHMARKS, main
from reasoning_embedding.errors import InputError


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REASONING_EMBEDDING_DATA", raising=False)
    monkeypatch.setattr(bench, "BATCH_SIZES", (1, 2, 4))
    monkeypatch.setattr(bench, "PACK_TOKENS", (256,))
    monkeypatch.setattr(bench, "REPEATS", 1)
    monkeypatch.setattr(bench, "DTYPES", {"fp32": torch.float32})
    monkeypatch.setattr(bench, "_generated", lambda count: ["red cat", "a blue fish eats", "moon " * 600])
    monkeypatch.setattr(bench, "_peak_memory", lambda side, *rest: {"ours": 50.0, "other": 100.0}[side])


@pytest.mark.usefixtures("small")
def test_both_sides_encode_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as done:
        main(["encode", "--json", "--quick", "--output", str(tmp_path / "record.json")])
    assert not done.value.code
    out = capsys.readouterr()
    [line] = out.out.splitlines()
    result = json.loads(line)
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["results"] == [result]
    assert {"cpu", "instructions", "cores", "threads", "gpu"} == set(record["hardware"])
    assert "torch" in record["versions"]
    assert record["command"].startswith("python -m benchmarks")
    assert record["date"]
    assert "generated: 3 texts" in out.err
    assert result["name"] == "encode/generated/st-best/fp32"
    assert result["largest_difference"] < 1e-5
    assert 512 < result["tokens"] < 540, "the long text is cut at 512 tokens"
    assert set(result["sweeps"]["other"]) == {"1", "4"}
    seconds = result["seconds"]
    assert result["ours"] == pytest.approx(result["tokens"] / seconds["ours"][0], rel=0.01)
    assert result["ratio"] == pytest.approx(seconds["other"][0] / seconds["ours"][0], rel=0.01)
    assert (result["unit"], result["memory_ratio"]) == ("tokens/s", 2.0)


def test_an_unknown_shape_ends_with_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["train", "--model", "L"])
    assert done.value.code == 2
    assert capsys.readouterr().err.startswith("error: --model: no shape 'L'")


def test_help_and_checks_are_timed_in_processes_that_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def seconds(words: list[str]) -> float:
        asked.append(" ".join(words))
        return 4.0 if words[0] == "-c" else 0.5 * len(asked)

    monkeypatch.setattr(_bench_start, "_seconds", seconds)
    shown = list(_bench_start.bench_start())
    assert [(each["name"], each["ours"], each["ratio"]) for each in shown] == [
        ("start/help", 3.5, round(4 / 3.5, 4)),
        ("start/check", 4.0, 1.0),
    ]
    assert len(asked) == 15
    assert asked[:3] == asked[3:6]


def test_the_commands_that_are_timed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bench_start, "_IMPORT", ["-c", "pass"])
    assert all(each["ours"] > 0 < each["other"] for each in _bench_start.bench_start(quick=True))
    with pytest.raises(subprocess.CalledProcessError):
        _bench_start._seconds(["-c", "raise SystemExit(2)"])


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
    folder = Path(__file__).resolve().parents[2] / "benchmarks" / "records"
    records = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    assert records
    for record in records:
        assert {"command", "date", "versions", "hardware", "results"} <= record.keys()
        for row in record["results"]:
            assert {"name", "ours", "other", "ratio", "unit", "memory_ratio"} <= row.keys()


def _benchmark(*results: dict[str, object]) -> object:
    def run(*, quick: bool, report: object) -> object:
        for result in results:
            if "raise" in result:
                raise RuntimeError("no luck")
            yield result

    return types.SimpleNamespace(bench=run)


GOOD = {"name": "toy/a", "ours": 2.0, "other": 1.0, "ratio": 2.0, "unit": "u/s", "memory_ratio": None}


@pytest.mark.parametrize(
    "results", [(GOOD, {"raise": True}), ({"name": "toy/b", "error": "OSError: no"}, GOOD)]
)
def test_a_failed_comparison_is_reported_and_the_others_stand(
    results: tuple[dict[str, object], ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(sys.modules, "toy_benchmark", _benchmark(*results))
    monkeypatch.setitem(BENCHMARKS, "loss", "toy_benchmark:bench")
    with pytest.raises(SystemExit) as done:
        main(["loss", "--output", str(tmp_path / "record.json")])
    assert done.value.code == 1
    out = capsys.readouterr().out
    assert "toy/a: 2 against 1 u/s, x2.00\n" in out
    assert "FAILED" in out
    written = json.loads((tmp_path / "record.json").read_text())["results"]
    assert [GOOD in written, len(written)] == [True, 2]


def test_all_runs_each_in_its_own_process_and_goes_on_after_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **options: object) -> object:
        commands.append(command[3:])
        return types.SimpleNamespace(returncode=1 if "train" in command else 0)

    monkeypatch.setattr("subprocess.run", run)
    with pytest.raises(SystemExit) as done:
        main(["all", "--quick", "--output", str(tmp_path)])
    assert done.value.code == 1
    assert [command[0] for command in commands] == list(BENCHMARKS)
    assert commands[0] == ["train", "--quick", "--output", str(tmp_path / "train-quick-cpu.json")]
    assert len(commands) > 1
