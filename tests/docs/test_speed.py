"""The figures on the page on speed are those of the records that it names."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")


def recorded(file: str, name: str) -> str:
    record = json.loads((ROOT / "benchmarks" / "records" / file).read_text())
    [found] = [result for result in record["results"] if result["name"] == name]
    memory = found["memory_ratio"]
    return f"{found['ratio']:.2f}" + ("" if memory is None else f" ({memory:.2f})")


def rows() -> list[tuple[str, str, str]]:
    """Name, record and figures of every cell of the tables."""
    cells: list[tuple[str, str, str]] = []
    columns: list[str] = []
    for line in TEXT.splitlines():
        words = [word.strip() for word in line.strip("|").split("|")] if line.startswith("| ") else []
        if words[:1] == ["comparison"]:
            columns = [file for word in words[1:] for file in re.findall(r"[\w-]+\.json", word)]
        elif words and words[0].startswith("`"):
            files = columns or [words.pop(1).strip("`")]
            cells += [(words[0].strip("`"), *pair) for pair in zip(files, words[1:], strict=True) if pair[1]]
    return cells


def test_every_figure_is_a_recorded_one() -> None:
    found = rows()
    assert len(found) > 20
    assert {(name, file): figures for name, file, figures in found} == {
        (name, file): recorded(file, name) for name, file, _ in found
    }
