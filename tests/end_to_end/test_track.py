"""A run with an ``hrsa`` section is measured when its last step is saved, by the same command."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq


def test_training_writes_the_track(write_run, rembed, rows: Path, tmp_path: Path) -> None:
    source = {"kind": "files", "path": str(rows)}
    section = {"probe": {"kind": "data", "source": source}, "k": [5], "steps": {"every": 6}, "max_rows": 60}
    config = write_run("tracked", extra={"hrsa": section})
    result = rembed("train", config)
    path = tmp_path / "runs" / "tracked" / "hrsa" / "track.parquet"
    assert str(path) in result.output
    found = pq.read_table(path).to_pylist()
    assert {row["step"] for row in found} == {0, 6}
    cka = [row for row in found if row["metric"] == "cka" and row["layer"] == "final norm"]
    assert cka[0]["value"] > 0.999 > cka[1]["value"] > 0
    assert cka[1]["n"] > 60  # every token, by running sums
    weights = tmp_path / "runs" / "tracked" / "checkpoints" / "step-000006" / "model.safetensors"
    plain = write_run("plain")
    rembed("train", plain)
    assert (
        weights.read_bytes()
        == (tmp_path / "runs" / "plain" / weights.relative_to(path.parents[1])).read_bytes()
    )


def test_a_faulty_section_costs_no_training(write_run, rembed, tmp_path: Path) -> None:
    section = {"probe": {"kind": "text", "path": str(tmp_path / "absent.txt")}}
    result = rembed("train", write_run("faulty", extra={"hrsa": section}), code=2)
    assert "absent.txt" in result.output
    assert not (tmp_path / "runs" / "faulty").exists()
