"""``rembed evaluate``: what is scored, of a file and of the options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reasoning_embedding.cli.evaluate import evaluation_section
from reasoning_embedding.errors import InputError

EXPERIMENT = """
kind: experiment
name: pair
recipe: {data: {sources: [{kind: world}]}, training: {batch_size: 4, steps: 1}}
runs: [{name: one, backbone: {kind: pretrained, path: somewhere}}]
"""


def test_options_add_tasks_to_those_of_a_file_and_win_over_itsevaluation_section(tmp_path: Path) -> None:
    (tmp_path / "choice").mkdir()
    (tmp_path / "choice" / "candidates.jsonl.gz").write_bytes(b"")
    path = tmp_path / "pair.yaml"
    path.write_text(
        EXPERIMENT
        + "evaluation: {tasks: [{kind: world}], steps: all, max_tokens: 64, instructions: {STS: x}}",
        encoding="utf-8",
    )
    nothing: dict[str, Any] = {"instructions": None, "steps": None, "max_tokens": None}
    kept = evaluation_section(path, [], [], nothing)
    assert (kept.steps, kept.max_tokens, kept.instructions) == ("all", 64, {"STS": "x"})
    folders = [tmp_path / "choice", tmp_path / "beir"]
    changed = evaluation_section(
        path, folders, ["RAR-b"], {"instructions": "i.json", "steps": [0, 200], "max_tokens": 32}
    )
    assert [task.kind for task in changed.tasks] == ["world", "choice", "beir", "mteb"]
    assert (changed.steps, changed.max_tokens) == ([0, 200], 32)
    assert changed.instructions == "i.json"
    alone = evaluation_section(None, [], ["RAR-b"], nothing)
    assert (alone.steps, alone.max_tokens, alone.instructions) == ("ends", None, None)
    with pytest.raises(InputError, match="nothing to score on"):
        evaluation_section(None, [], [], nothing)
    path.write_text(EXPERIMENT, encoding="utf-8")
    with pytest.raises(InputError, match="no section 'evaluation'"):
        evaluation_section(path, [], ["RAR-b"], nothing)
