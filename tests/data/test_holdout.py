"""Rows kept out of training: chosen by content, and nothing of them is learnt."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasoning_embedding import config
from reasoning_embedding.data.beir import read_beir
from reasoning_embedding.data.holdout import HeldOut, hold_out, read_names, write_tasks
from reasoning_embedding.data.quality.shingles import normalise
from reasoning_embedding.data.table import Table, build_table
from reasoning_embedding.errors import InputError
from tests.factories import write_lines


def _table(folder: Path, records: list[dict[str, Any]]) -> Table:
    path = write_lines(folder / "rows.jsonl", records)
    return build_table(config.Data(sources=[config.FilesSource(kind="files", path=str(path))]))


def _records(count: int) -> list[dict[str, Any]]:
    """Rows of words of their own, each with two positives of others as negatives."""
    return [
        {
            "query": f"question {i} about thing{i}",
            "pos": [f"answer {i} says that thing{i} is of kind{i} and place{i}"],
            "neg": [f"answer {k} says that thing{k} is of kind{k} and place{k}" for k in (i - 1, i - 2)],
            "pos_scores": [float(i)],
            "neg_scores": [i + 0.25, i + 0.5],
        }
        for i in range(2, count + 2)
    ]


def _split(table: Table, share: float = 0.1) -> tuple[Table, list[HeldOut], str]:
    said: list[str] = []
    left, tasks = hold_out(table, share, said.append)
    return left, tasks, said[0]


def _learnt(table: Table) -> set[str]:
    rows = [table.row(index) for index in range(len(table))]
    return {normalise(text) for row in rows for text in (row.query, *row.positives, *row.negatives)}


def test_about_the_share_is_held_out_and_none_of_its_texts_is_learnt(tmp_path: Path) -> None:
    table = _table(tmp_path, _records(400))
    left, [task], said = _split(table)
    assert 20 <= len(task.queries) <= 60
    assert len(left) + len(task.queries) == 400
    answers = {task.corpus[document] for judged in task.qrels.values() for document in judged}
    assert not _learnt(left) & {normalise(text) for text in (*task.queries.values(), *answers)}
    assert f"held out: {len(task.queries)} of 400 rows" in said
    # Held-out answers stood among the negatives of two rows each; the scores of those that stay are theirs.
    assert "held-out texts among negatives" in said
    for index in range(len(left)):
        row = left.row(index)
        number = row.positive_scores[0]
        wanted = {f"answer {int(number) - k} ": number + k / 4 for k in (1, 2)}
        for text, score in zip(row.negatives, row.negative_scores, strict=True):
            assert next(value for start, value in wanted.items() if text.startswith(start)) == score
    assert min(left.negatives.lengths) < 2
    # Without it the same check finds them: the control.
    assert _learnt(table) & {normalise(text) for text in answers}


def test_the_same_rows_are_chosen_in_any_order(tmp_path: Path) -> None:
    records = _records(200)
    first, [task], _ = _split(_table(tmp_path / "a", records))
    again, [same], _ = _split(_table(tmp_path / "a", records))
    assert (again.fingerprint, same) == (first.fingerprint, task)
    random.Random(0).shuffle(records)
    other, [shuffled], _ = _split(_table(tmp_path / "b", records))
    assert (shuffled.queries, shuffled.corpus.keys()) == (task.queries, task.corpus.keys())
    assert other.fingerprint != first.fingerprint  # other order, other batches
    _, [more], _ = _split(_table(tmp_path / "c", [*records, *_records(230)[200:]]))
    assert task.queries.items() <= more.queries.items()


def test_the_fingerprint_tells_shares_apart(tmp_path: Path) -> None:
    table = _table(tmp_path, _records(200))
    assert len({table.fingerprint, _split(table, 0.1)[0].fingerprint, _split(table, 0.2)[0].fingerprint}) == 3


def test_rows_with_one_query_or_answer_stay_together(tmp_path: Path) -> None:
    records = [
        {
            "query": f"Question {i // 2}?" if i % 2 else f"question {i // 2}",
            "pos": [f"text {(i + 1) // 2 % 3} of {i // 8}"],
        }
        for i in range(400)
    ]
    table = _table(tmp_path, records)
    left, [task], _ = _split(table)
    assert len(left) < 400
    answers = {task.corpus[document] for judged in task.qrels.values() for document in judged}
    assert not _learnt(left) & {normalise(text) for text in (*task.queries.values(), *answers)}


def test_near_twins_of_held_out_texts_are_left_out_of_training_with_a_count(tmp_path: Path) -> None:
    words = [f"w{k}" for k in range(40)]
    records = []
    for i in range(100):
        body = " ".join(f"{word}x{i}" for word in words)
        records.append({"query": f"first {i}", "pos": [body]})
        records.append({"query": f"second {i}", "pos": [f"{body} too"]})  # 36 of 37 shingles are the same
    left, [task], said = _split(_table(tmp_path, records))
    dropped = 200 - len(left) - len(task.queries)
    assert dropped > 0
    assert f"{dropped} rows with near twins" in said
    bodies = {text.removesuffix(" too") for text in task.corpus.values()}
    held = {
        task.corpus[document].removesuffix(" too") for judged in task.qrels.values() for document in judged
    }
    assert not {text.removesuffix(" too") for text in _learnt(left)} & held
    assert bodies > held, "others to find them among"


def test_rows_that_all_share_an_answer_are_refused(tmp_path: Path) -> None:
    table = _table(tmp_path, [{"query": f"q {i}", "pos": ["yes"]} for i in range(50)])
    with pytest.raises(InputError, match="no row can be held out"):
        _split(table)


def test_a_source_keeps_rows_to_learn_from(tmp_path: Path) -> None:
    records = [{**record, "source": "large"} for record in _records(100)]
    alone = [{"query": f"alone {i}", "pos": [f"its text {i}"], "source": f"s{i}"} for i in range(30)]
    left, tasks, _ = _split(_table(tmp_path, [*records, *alone]), 0.3)
    assert set(np.unique(left.source)) == set(range(31))
    assert [task.source for task in tasks] == ["large"]


def test_tasks_are_folders_as_evaluation_reads_them(tmp_path: Path) -> None:
    records = [
        {"query": ["find it {now}", f"{source} {i}"], "pos": [f"{source} text {i}"], "source": source}
        for source in ("a b", "c")
        for i in range(60)
    ]
    table = _table(tmp_path, records)
    left, tasks, _ = _split(table, 0.2)
    folder = tmp_path / "holdout"
    template = config.Data.model_fields["query_template"].default
    write_tasks(folder, tasks, left.fingerprint, template)
    assert read_names(folder) == {"000": "a b", "001": "c"}
    for place, task in zip(("000", "001"), tasks, strict=True):
        found = read_beir(folder / place)
        assert (found.queries, found.corpus, found.qrels) == (task.queries, task.corpus, task.qrels)
        assert found.instruction == "find it {now}"
    before = (folder / "000" / "corpus.jsonl").stat().st_mtime_ns
    write_tasks(folder, tasks, left.fingerprint, template)
    assert (folder / "000" / "corpus.jsonl").stat().st_mtime_ns == before
    write_tasks(folder, tasks[:1], "other", template)
    assert read_names(folder) == {".": "a b"}


def test_the_configuration_adds_the_task_and_refuses_it_without_rows() -> None:
    from tests.factories import run_config

    held = run_config(data={"holdout": 0.02})
    assert [task.kind for task in held.evaluation.tasks] == ["holdout"]
    both = run_config(
        data={"holdout": 0.02}, evaluation={"tasks": [{"kind": "world"}], "every": 7, "select": "holdout"}
    )
    assert [task.kind for task in both.evaluation.tasks] == ["world", "holdout"]
    assert (both.evaluation.every, both.evaluation.select) == (7, "holdout")
    assert config.RunConfig.model_validate(both.model_dump(mode="json")) == both
    with pytest.raises(ValueError, match="nothing to score on"):
        run_config(evaluation={"tasks": [{"kind": "holdout"}]})
    with pytest.raises(ValueError, match="holdout"):
        run_config(data={"holdout": 0.9})
