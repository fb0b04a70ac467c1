"""A teacher's scores on their way from a file to the slots of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasoning_embedding import config
from reasoning_embedding.data import Plan, Table, TokenStore, require_scores
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.errors import InputError
from tests.data.tables import table_of

#: Every text's score is a number of its own, so that a mixed-up one is seen.
ROWS: list[dict[str, Any]] = [
    {
        "query": f"q{row}",
        "pos": [f"p{row}.{k}" for k in range(2)],
        "neg": [f"n{row}.{k}" for k in range(4)],
        "pos_scores": [row + k / 10 for k in range(2)],
        "neg_scores": [-row - k / 10 for k in range(4)],
    }
    for row in range(5)
]


def _plan(table: Table, negatives: int = 2) -> Plan:
    data = config.Data.model_validate({"sources": [{"kind": "world"}], "negatives": negatives})
    return Plan(table, config.Training(batch_size=3, epochs=4), data, 0)


def _store(table: Table) -> TokenStore:
    count = len(table.texts)
    return TokenStore(np.arange(count, dtype=np.int32), np.arange(count + 1), np.zeros(count, dtype=np.int32))


def test_scores_stay_with_their_texts(tmp_path: Path) -> None:
    table = table_of(tmp_path, *ROWS)
    require_scores(table)
    scores = {
        (f"q{number}", text): score
        for number, row in enumerate(ROWS)
        for text, score in zip(row["pos"] + row["neg"], row["pos_scores"] + row["neg_scores"], strict=True)
    }
    plan = _plan(table)
    for step in range(1, plan.steps + 1):
        batch = Batch.from_plan(plan.at(step), _store(table))
        names = [table.texts[int(text[0])][1] for text in batch.texts]
        assert batch.owner.tolist() == [0, 1, 2, 0, 0, 1, 1, 2, 2]
        for document, owner, score in zip(batch.document, batch.owner, batch.score, strict=True):
            assert score == np.float32(scores[names[batch.query[owner]], names[document]])


def test_rows_without_scores_have_none(tmp_path: Path) -> None:
    plain = [{key: row[key] for key in ("query", "pos", "neg")} for row in ROWS]
    table = table_of(tmp_path, *plain)
    assert table.positive_scores is None
    assert Batch.from_plan(_plan(table).at(1), _store(table)).score.isnan().all()
    with pytest.raises(InputError, match="5 of 5 rows have none"):
        require_scores(table)


def test_a_row_that_lacks_scores_is_counted(tmp_path: Path) -> None:
    table = table_of(tmp_path, *ROWS[:2], ROWS[2] | {"neg_scores": None}, *ROWS[3:])
    with pytest.raises(InputError, match=r"1 of 5 rows have none") as caught:
        require_scores(table)
    assert "pos_scores" in caught.value.todo
    no_negatives = {"query": "q2", "pos": ["p"]}  # nothing to compare there: no score is missed
    require_scores(table_of(tmp_path, *ROWS[:2], no_negatives))


def test_distillation_needs_hard_negatives(tmp_path: Path) -> None:
    rows = [{"query": "q", "pos": ["p"], "pos_scores": [1.0]}]
    with pytest.raises(InputError, match="no row has any"):
        require_scores(table_of(tmp_path, *rows))


def test_scores_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    plain = [{key: row[key] for key in ("query", "pos", "neg")} for row in ROWS]
    changed = [ROWS[0] | {"pos_scores": [0.0, 0.5]}, *ROWS[1:]]
    found = {table_of(tmp_path, *rows).fingerprint for rows in (ROWS, plain, changed)}
    assert len(found) == 3


def test_other_positives_of_a_row_are_known_to_answer(tmp_path: Path) -> None:
    shared = {"query": "q1", "pos": ["p0.0"], "neg": ["p0.1"]}
    table = table_of(tmp_path, *ROWS[:2], shared)
    plan = _plan(table)
    seen = set()
    for step in range(1, plan.steps + 1):
        batch = Batch.from_plan(plan.at(step), _store(table))
        names = [table.texts[int(text[0])][1] for text in batch.texts]
        known = {(names[query], names[text]) for query, text in batch.known.T}
        known |= {
            (names[query], names[text]) for query, text in zip(batch.query, batch.document, strict=False)
        }
        answers = {(row["query"], text) for row in (*ROWS[:2], shared) for text in row["pos"]}
        assert known == {(query, text) for query, text in answers if text in names}
        seen |= known
    assert ("q0", "p0.1") in seen  # in the batch as a hard negative of another row
    assert ("q1", "p0.0") in seen


def test_a_batch_has_a_seed_of_its_own(tmp_path: Path) -> None:
    table = table_of(tmp_path, *ROWS)
    plan = _plan(table)
    seeds = [plan.at(step).seed for step in (1, 2, 1)]
    assert seeds[0] == seeds[2] != seeds[1]
    assert Batch.from_plan(plan.at(2), _store(table)).seed == seeds[1]
