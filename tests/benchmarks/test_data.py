"""Both sides of the data benchmark read the same rows and reach their batches."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import data as bench_data


def test_both_sides_run_and_a_result_compares_them(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    bench_data.write_rows(rows, 600)
    bench_data._write_tokenizer(tmp_path / "tokenizer.json", rows)
    records = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(records) == 600
    assert {frozenset(record) for record in records} == {frozenset({"query", "pos", "neg"})}
    sides = {
        "ours": [bench_data.our_side(tmp_path, tmp_path / "ours", 1)],
        "other": [bench_data.other_side(tmp_path, tmp_path / "other", 1)],
    }
    assert all(seconds > 0 and peak > 0 for found in sides.values() for seconds, peak in found)
    assert bench_data.our_memory(tmp_path, tmp_path / "memory", 1)[1] > 10
    result = bench_data._result("data/tokenise/600", 600, sides, {"processes": 1})
    assert result["ratio"] == round(sides["other"][0][0] / sides["ours"][0][0], 4)
    assert json.loads(json.dumps(result)) == result
