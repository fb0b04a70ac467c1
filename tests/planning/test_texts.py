"""A plan counts the rows and texts that the run will draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reasoning_embedding.data import Plan, load_table
from reasoning_embedding.errors import InputError
from reasoning_embedding.planning.plan import cost
from reasoning_embedding.planning.shapes import known_shape
from reasoning_embedding.planning.texts import assumed_texts, run_texts
from tests.factories import run_config, write_lines

SMALL = known_shape("Qwen/Qwen3-0.6B")


def run(sources: list[dict[str, Any]], *, batch_size: int = 10, epochs: float = 2, **data: Any) -> Any:
    return run_config(
        backbone={"path": "Qwen/Qwen3-0.6B"},
        data={"sources": sources, "query_template": "{instruction}", **data},
        training={"batch_size": batch_size, "epochs": epochs},
    )


@pytest.fixture
def sources(tmp_path: Path) -> list[dict[str, Any]]:
    """`long`: 100 rows of texts of 40 characters, a hard negative each; `short`: 40 rows of 8, without."""
    found = []
    for name, rows, size in (("long", 100, 40), ("short", 40, 8)):
        file = tmp_path / f"{name}.jsonl"
        lines = [
            {"query": f"q{row}".ljust(size, name[0]), "pos": [f"p{row}".ljust(size, name[0])]}
            | ({"neg": [f"n{row}".ljust(size, name[0])]} if name == "long" else {})
            for row in range(rows)
        ]
        write_lines(file, lines)
        found.append({"kind": "files", "path": str(file), "name": name})
    return found


def test_caps_change_rows_and_steps(sources: list[dict[str, Any]]) -> None:
    for caps, rows in ((None, 140), ({"long": 20}, 60), ({"long": 20, "short": 10}, 30)):
        settings = run(sources, caps=caps)
        texts = run_texts(settings)
        found = cost(settings, SMALL, texts, gpus=1, gpu="H200")
        assert texts.rows == rows
        assert found["steps"] == 2 * rows // 10
        table = load_table(settings.data)
        assert found["steps"] == Plan(table, settings.training, settings.data, seed=0).steps


def test_texts_are_those_that_batches_draw(sources: list[dict[str, Any]]) -> None:
    """A text of 40 characters counts 10 tokens, one of 8 counts 2; a row is three texts, or two."""
    every = run_texts(run(sources, caps={"long": 1, "short": 40}, batch_size=40))
    assert every.each == pytest.approx(2.0, abs=0.05), "its rows have no negative"
    assert every.mean == pytest.approx(2.0, abs=0.5)
    mixed = run_texts(run(sources, caps={"long": 40}))
    assert mixed.each == pytest.approx((3 * 40 + 2 * 40) / 80)
    assert mixed.mean == pytest.approx((3 * 40 * 10 + 2 * 40 * 2) / (5 * 40))
    assert mixed.mean_square == pytest.approx((3 * 40 * 100 + 2 * 40 * 4) / (5 * 40))
    weighted = run_texts(run(sources, weights={"long": 1e-9, "short": 1.0}))
    assert (weighted.mean, weighted.each) == (2.0, 2.0)
    cut = run_texts(run(sources, caps={"long": 40}, query_max_tokens=4))
    assert cut.mean == pytest.approx((40 * 4 + 2 * 40 * 10 + 2 * 40 * 2) / (5 * 40)), "queries alone are cut"


def test_data_that_cannot_fill_a_batch_is_refused(sources: list[dict[str, Any]]) -> None:
    with pytest.raises(InputError, match="30 rows cannot fill a batch of 40"):
        run_texts(run(sources, caps={"long": 20, "short": 10}, batch_size=40))


def test_caps_of_sources_that_are_not_here() -> None:
    hub = {"kind": "hub", "dataset": "a/b"}

    def rows(*known: dict[str, Any], caps: dict[str, int]) -> int | None:
        return assumed_texts(run([hub | one for one in known], caps=caps).data).rows

    named, other = {"name": "one", "expected_rows": 1000}, {"expected_rows": 500, "limit": 300}
    assert rows(named, other, caps={"one": 200}) == 200 + 300
    assert rows(named, other, caps={"a/b": 100}) == 1000 + 100
    assert rows(named, {}, caps={"one": 200}) is None


def test_rows_that_are_held_out_are_no_rows_of_an_epoch(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "rows.jsonl", [{"query": f"question {i}", "pos": [f"its answer {i}"]} for i in range(200)]
    )
    data = {"sources": [{"kind": "files", "path": str(path)}], "negatives": 0}
    assert run_texts(run_config(data=data)).rows == 200
    held = run_texts(run_config(data={**data, "holdout": 0.1})).rows
    assert held is not None
    assert 150 < held < 200
    hub = {"sources": [{"kind": "hub", "dataset": "a/b", "expected_rows": 1000}], "holdout": 0.1}
    assert run_texts(run_config(data=hub)).rows == 900
