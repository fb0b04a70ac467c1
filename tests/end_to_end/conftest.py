"""What end-to-end tests share: training rows, and the command line in this process."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.factories import run_settings, write_lines

WORDS = """
red green blue cat dog bird fish fox tree river stone city king queen moon sun star sea road house
""".split()


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 learnable rows: a document repeats its query's words."""
    chance = random.Random(0)
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    records = []
    for _ in range(40):
        query = " ".join(chance.sample(WORDS, 3))
        records.append(
            {
                "query": ["find the answer", query],
                "pos": [query + " " + " ".join(chance.sample(WORDS, chance.randint(1, 5)))],
                "neg": [" ".join(chance.sample(WORDS, 4)) for _ in range(2)],
            }
        )
    return write_lines(path, records)


@pytest.fixture(scope="session")
def small_run(rows: Path, tiny_backbone: Path) -> Callable[..., dict[str, Any]]:
    """Settings of a run of six steps; keyword arguments change or add ``training`` keys, `extra` top-level ones."""

    def settings(
        folder: Path, name: str = "run", extra: dict[str, Any] | None = None, **training: Any
    ) -> dict[str, Any]:
        sections: dict[str, Any] = {
            "backbone": {"kind": "pretrained", "path": str(tiny_backbone)},
            "data": {
                "sources": [{"kind": "files", "path": str(rows)}],
                "negatives": 2,
                "query_max_tokens": 32,
                "document_max_tokens": 32,
            },
            "training": {
                "batch_size": 8,
                "steps": 6,
                "learning_rate": 1e-3,
                "precision": "fp32",
                "threads": 1,
                **training,
            },
            "checkpoints": {"every": 3, "log_spaced": False},
            "logging": {"tensorboard": False},
        }
        return run_settings(name=name, output_dir=str(folder / "runs"), **{**sections, **(extra or {})})

    return settings


@pytest.fixture
def write_run(tmp_path: Path, small_run: Callable[..., dict[str, Any]]) -> Callable[..., Path]:
    """Write the YAML of :func:`small_run`."""

    def write(name: str = "run", extra: dict[str, Any] | None = None, **training: Any) -> Path:
        path = tmp_path / f"{name}.yaml"
        settings = small_run(tmp_path, name, extra, **training)
        path.write_text(json.dumps(settings, indent=1))  # JSON is YAML
        return path

    return write


@pytest.fixture(scope="session")
def rembed() -> Callable[..., Result]:
    """Run the command line in this process."""

    def run(*words: object, code: int = 0) -> Result:
        from reasoning_embedding.cli.main import app

        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == code, f"exit {result.exit_code}\n{result.output}\n{result.exception!r}"
        return result

    return run
