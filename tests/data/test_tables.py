"""Data as people have it: CSV and TSV, JSON arrays, saved data sets, streams of the Hub, and their own names of columns."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import datasets.config
import pytest

from reasoning_embedding.config import Data
from reasoning_embedding.data import Table
from reasoning_embedding.data.readers import read_records
from reasoning_embedding.data.rows import RowProblem
from reasoning_embedding.data.table import build_table, open_table
from reasoning_embedding.errors import InputError


def table(path: Path | str, **source: Any) -> Table:
    return build_table(Data.model_validate({"sources": [{"kind": "files", "path": str(path), **source}]}))


def texts(found: Table) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    rows = [found.row(index) for index in range(len(found))]
    return [(row.query, row.positives, row.negatives) for row in rows]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", 'query,pos,neg\nq,"p, with\nnewline and ""quotes""",n\nr,s,\n'),
        ("rows.csv", '\ufeffquery;pos;neg\nq;"p, with\nnewline and ""quotes""";n\nr;s;\n'),
        ("rows.tsv", 'query\tpos\tneg\nq\t"p, with\nnewline and ""quotes"""\tn\n\nr\ts\t\n'),
        (
            "rows.csv.gz",
            'query,pos,neg\r\nq,"[""p, with\\nnewline and \\""quotes\\""""]","[""n""]"\r\nr,s,\r\n',
        ),
        (
            "rows.json",
            '\n [ {"query": "q", "pos": "p, with\\nnewline and \\"quotes\\"", "neg": ["n"]} ,\n{"query":"r","pos":["s"]}]\n',
        ),
    ],
)
def test_files_of_several_kinds_give_the_same_rows(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    assert texts(table(path)) == [("q", ('p, with\nnewline and "quotes"',), ("n",)), ("r", ("s",), ())]


def test_a_long_json_array_is_read_a_block_at_a_time(tmp_path: Path) -> None:
    rows = [{"query": f"q{i}", "pos": ["ä" * (i % 7) * 9000 + f"p{i}"]} for i in range(100)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, indent=2, ensure_ascii=False), encoding="utf-8")
    assert path.stat().st_size > 4 * 2**20
    assert [record for _, record in read_records(path)] == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[{"query": "q", "pos": "p"}', "the file ends before ','"),
        ("a.json", b'[{"query": "q", "pos": "p"} {"query": "r"}]', "found '{' for ','"),
        ("a.json", b'[{"query": "q", "pos": "p"}] {}', "there is more after its ]"),
        ("a.json", b'[\n{"query": nothing}]', "a.json:2: broken JSON array"),
        ("a.json", b'["\xff"]', "not UTF-8"),
        ("a.csv", b"query,query\nq,p\n", "two columns have one name"),
        ("a.csv", b"", "no names of columns"),
        ("a.csv", b'query,pos\nq,p\n"never closed,p\nr,s\n', "a.csv:3: not a table"),
        (
            "a.csv",
            b"query,pos\nq,p,too many\n",
            "a.csv:2: cells do not match the columns: 3 cells, 2 columns",
        ),
        ("a.csv", b"query,pos\nq\xff,p\n", "not UTF-8: column 'query'"),
        ("a.csv", b"query,pos\nq,\"['p', 'o']\"\n", "a list as Python prints it"),
        ("a.csv", b"what,why\nq,p\n", "no query: its fields: what, why"),
    ],
)
def test_a_broken_file_says_where(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        table(tmp_path / name)
    assert message in str(error.value)


def test_what_save_to_disk_wrote_is_read_in_its_order(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "answer": f"p{i}"} for i in range(5)]
    saved = datasets.Dataset.from_list(rows)
    saved.save_to_disk(tmp_path / "set", num_shards=2)
    (tmp_path / "set" / "cache-1.arrow").write_bytes(b"of some map()")
    found = table(tmp_path / "set")
    assert texts(found) == [(f"q{i}", (f"p{i}",), ()) for i in range(5)]
    assert found.sources == ["set"]
    splits = datasets.DatasetDict({"train": saved, "test": saved})
    splits.save_to_disk(tmp_path / "splits")
    with pytest.raises(InputError, match=r"splits train, test\n.*splits/train"):
        table(tmp_path / "splits")
    assert len(table(tmp_path / "splits" / "train")) == 5


@pytest.mark.parametrize("streaming", [False, True])
def test_a_data_set_of_the_hub_with_its_own_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    lines = [json.dumps({"q": f"q{i}", "found": {"text": [f"p{i}"]}}) + "\n" for i in range(9)]
    (folder / "train.jsonl.gz").write_bytes(gzip.compress("".join(lines).encode()))
    source = {
        "kind": "hub",
        "dataset": str(tmp_path / "set"),
        "files": "data/*.jsonl.gz",
        "streaming": streaming,
        "limit": 4,
        "name": "mine",
        "columns": {"query": "q", "pos": "found.text"},
    }
    found = build_table(Data.model_validate({"sources": [source]}))
    assert texts(found) == [(f"q{i}", (f"p{i}",), ()) for i in range(4)]
    with pytest.raises(InputError, match="cannot load the data set"):
        build_table(Data.model_validate({"sources": [source | {"files": "none/*.jsonl"}]}))


@pytest.mark.parametrize(
    ("record", "row", "said"),
    [
        (
            {"anchor": "q", "positive": "p", "negative_1": "n"},
            ("q", ("p",), ("n",)),
            "query from anchor; positives from positive",
        ),
        ({"question": "q", "answer": "p"}, ("q", ("p",), ()), "query from question; positives from answer"),
        ({"query": "q", "response": "p"}, ("q", ("p",), ()), "positives from response"),
        (
            {"sentence1": "q", "sentence2": "p"},
            ("q", ("p",), ()),
            "query from sentence1; positives from sentence2",
        ),
        ({"query": "q", "pos": ["p"], "answer": "a"}, ("q", ("p",), ()), None),
    ],
)
def test_known_names_are_read_and_said(tmp_path: Path, record: dict, row: tuple, said: str | None) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(record), encoding="utf-8")
    data = Data.model_validate({"sources": [{"kind": "files", "path": str(path)}]})
    (tmp_path / "cache").mkdir()
    for found in (build_table(data, tmp_path / "cache"), open_table(tmp_path / "cache")):
        assert texts(found) == [row]
        assert list(found.notes) == ([] if said is None else [f"data.sources[0] (files): {said}"])


def graded(tmp_path: Path, *scores: float, name: str = "score") -> Path:
    path = tmp_path / "graded.jsonl"
    rows = [{"sentence1": f"q{i}", "sentence2": f"p{i}", name: score} for i, score in enumerate(scores)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_graded_pairs_need_a_threshold(tmp_path: Path) -> None:
    path = graded(tmp_path, 0.9, 0.2, 0.5)
    with pytest.raises(InputError, match=r"a graded pair \(it has a score\).*\n.*min_score: 0\.8"):
        table(path)
    found = table(path, min_score=0.5)
    assert texts(found) == [("q0", ("p0",), ()), ("q2", ("p2",), ())]
    assert found.skipped == {"a score below min_score": 1}
    assert "data.sources[0] (files): 1 pairs scored below 0.5 are left out" in found.notes
    # What is named is what is read: without the score every pair counts.
    assert len(table(path, columns={"query": "sentence1", "pos": "sentence2"})) == 3
    with pytest.raises(InputError, match="no rows left"):
        table(path, min_score=2.0)


def test_labels_are_grades_of_0_and_1(tmp_path: Path) -> None:
    assert len(table(graded(tmp_path, 0, 1, 1, name="label"), min_score=1)) == 2
    with pytest.raises(InputError, match="its label is not a number"):
        table(graded(tmp_path, "yes", name="label"), min_score=1)  # ty: ignore[invalid-argument-type]


def test_our_own_rows_may_carry_a_score_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"query": "q", "pos": ["p"], "score": 0.1}', encoding="utf-8")
    assert len(table(path)) == 1
    with pytest.raises(InputError, match="no score, where the source has a min_score"):
        table(path, min_score=0.5)
    assert len(table(path, min_score=0.1, columns={"query": "query", "pos": "pos", "score": "score"})) == 1


def test_several_columns_of_negatives(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("frage,antwort,falsch1,falsch2\nq,p,n,m\nr,s,,o\n", encoding="utf-8")
    columns = {"query": "frage", "pos": "antwort", "neg": ["falsch1", "falsch2"]}
    assert texts(table(path, columns=columns)) == [("q", ("p",), ("n", "m")), ("r", ("s",), ("o",))]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"query": "frgae", "pos": "antwort"}, "no column 'frgae': its fields: antwort, falsch, frage"),
        ({"query": "frage", "pos": "antwort", "neg": "flasch"}, "no record has a column 'flasch'"),
    ],
)
def test_a_misspelt_column_is_no_silence(tmp_path: Path, columns: dict, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("frage,antwort,falsch\nq,p,n\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        table(path, columns=columns)


def test_a_mix_with_its_own_columns(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"q": "q", "docs": [1], "data": "a"}', encoding="utf-8")
    (tmp_path / "corpus.jsonl").write_text('{"_id": "1", "text": "p"}', encoding="utf-8")
    source = {"kind": "mix", "rows": str(tmp_path / "rows.jsonl"), "corpus": str(tmp_path / "corpus.jsonl")}
    columns = {"query": "q", "pos": "docs", "source": "data"}
    found = build_table(Data.model_validate({"sources": [{**source, "columns": columns, "sources": ["a"]}]}))
    assert texts(found) == [("q", ("p",), ())]
    assert found.sources == ["a"]


def test_every_accepted_name_is_in_the_error_and_the_page() -> None:
    from reasoning_embedding.data import rows

    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    for name in (*rows._QUERY, *rows._POSITIVES, *rows._NEGATIVES):
        assert name in rows.ACCEPTED
        assert f"`{name}`" in page
    for name in (*rows._INSTRUCTION, *rows._SCORE, "negative_1"):
        assert f"`{name}`" in page


def test_a_problem_of_one_row_is_no_problem_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("query,pos\nq,p\nonly one\nr,s\n", encoding="utf-8")
    records = [record for _, record in read_records(path)]
    assert [isinstance(record, RowProblem) for record in records] == [False, True, False]
