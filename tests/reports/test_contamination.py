"""The table of evaluation texts in the training data, on the page and in Markdown."""

from __future__ import annotations

from pathlib import Path

from reasoning_embedding.files import write_json
from reasoning_embedding.reports.grid import to_html, to_markdown
from reasoning_embedding.reports.pages.experiment import build_tables
from reasoning_embedding.reports.reading import read_experiment
from reasoning_embedding.reports.tables import contamination_table

FOUND = {
    "threshold": 0.8,
    "words": 5,
    "training": {"texts": 90, "fingerprint": "f"},
    "tasks": {
        "own": {
            "queries": {"texts": 40, "exact": 0, "near": 0, "sources": {}, "examples": []},
            "documents": {
                "texts": 1600, "exact": 3, "near": 1, "sources": {"nli": 3, "web": 1},
                "examples": [{"kind": "exact", "jaccard": 1.0, "text": "<b>a\ncat</b>", "training": {}}],
            },
        }
    },
    "unchecked": {"STS22": "offline, and these data sets are not on this machine:\n  STS22"},
}  # fmt: skip


def test_the_table_shows_counts_shares_and_sources(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    write_json(tmp_path / "contamination.json", FOUND)
    grid = contamination_table(read_experiment(tmp_path))
    rows = [[cell.plain() for cell in row] for row in grid.rows]
    assert rows[0] == ["own queries", "40", "0", "0", "0.0 %", "–", "–"]
    assert rows[1] == ["own documents", "1,600", "3", "1", "0.2 %", "nli 3, web 1", "<b>a cat</b>"]
    assert rows[2][0] == "STS22 not checked"
    assert rows[2][-1].startswith("offline, and these")
    assert all(len(row) == len(grid.columns) for row in rows)
    assert "&lt;b&gt;a cat" in to_html(grid)
    assert "| own documents | 1,600 | 3 | 1 | 0.2 % |" in to_markdown(grid)


def test_without_the_file_there_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert "contamination" not in {grid.key for grid in build_tables(read_experiment(tmp_path))}
    write_json(tmp_path / "contamination.json", FOUND)
    assert "contamination" in {grid.key for grid in build_tables(read_experiment(tmp_path))}
