"""Reading BEIR-style folders: what they hold, and where they are wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from reasoning_embedding.data.beir import read_beir
from reasoning_embedding.errors import InputError

CORPUS = [
    {"_id": "d1", "title": "Cats", "text": "a cat sleeps"},
    {"_id": "d2", "title": "", "text": "a dog runs"},
    {"_id": "d3", "text": "the sun"},
]
QUERIES = [
    {"_id": "q1", "text": "who sleeps"},
    {"_id": "q2", "text": "who runs"},
    {"_id": "q3", "text": "moon"},
]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td2\t1\n"


def write(folder: Path, corpus=CORPUS, queries=QUERIES, qrels: str = QRELS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (folder / "qrels.tsv").write_text(qrels)
    return folder


def test_a_folder_is_read_whole(tmp_path: Path) -> None:
    folder = write(tmp_path / "task")
    (folder / "meta.json").write_text('{"instruction": "Find it"}')
    data = read_beir(folder)
    assert data.corpus == {"d1": "Cats a cat sleeps", "d2": "a dog runs", "d3": "the sun"}
    assert data.queries == {"q1": "who sleeps", "q2": "who runs"}
    assert data.qrels == {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}}
    assert data.unjudged == 1, "q3 has no judgement"
    assert data.instruction == "Find it"
    assert read_beir(folder, instruction="Other").instruction == "Other"
    assert read_beir(folder, instruction="").instruction is None


def test_gz_and_the_original_layout_read_the_same(tmp_path: Path) -> None:
    plain = read_beir(write(tmp_path / "plain"))
    folder = write(tmp_path / "packed")
    for name in ("corpus.jsonl", "queries.jsonl"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    (folder / "qrels").mkdir()
    (folder / "qrels.tsv").rename(folder / "qrels" / "test.tsv")
    assert read_beir(folder) == plain
    no_header = write(tmp_path / "no_header", qrels=QRELS.split("\n", 1)[1])
    assert read_beir(no_header) == plain


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    data = read_beir(write(tmp_path / "a"))
    assert data.fingerprint == read_beir(write(tmp_path / "b")).fingerprint
    changes = [
        read_beir(write(tmp_path / "c", corpus=[*CORPUS, {"_id": "d4", "text": "sea"}])),
        read_beir(write(tmp_path / "d", qrels=QRELS.replace("d1\t2", "d1\t1"))),
        read_beir(tmp_path / "a", instruction="Find it"),
    ]
    assert len({data.fingerprint, *(change.fingerprint for change in changes)}) == 4


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ({"corpus": [*CORPUS, {"_id": "d2", "text": "again"}]}, "corpus.jsonl:4", "'d2' occurs twice"),
        ({"queries": [*QUERIES, {"_id": "q1", "text": "again"}]}, "queries.jsonl:4", "'q1' occurs twice"),
        ({"corpus": [{"id": "d1", "text": "x"}]}, "corpus.jsonl:1", "'_id' is missing"),
        ({"corpus": [{"_id": "d1", "text": None}]}, "corpus.jsonl:1", "'text' or 'title' of 'd1'"),
        ({"corpus": []}, "corpus.jsonl", "the file is empty"),
        ({"queries": [{"_id": "q1", "text": " "}]}, "queries.jsonl", "'q1' has no text"),
        ({"qrels": ""}, "qrels.tsv", "positive grade"),
        ({"qrels": "query-id\tcorpus-id\tscore\nq1\td1\t0\n"}, "qrels.tsv", "positive grade"),
        ({"qrels": QRELS + "q9\td1\t1\n"}, "qrels.tsv:5", "query 'q9' is not"),
        ({"qrels": QRELS + "q1\td9\t1\n"}, "qrels.tsv:5", "document 'd9' is not"),
        ({"qrels": QRELS + "q1\td1\t1\n"}, "qrels.tsv:5", "occurs twice"),
        ({"qrels": QRELS + "q1\td3\thigh\n"}, "qrels.tsv:5", "'high' is not a whole number"),
        ({"qrels": QRELS + "q1\td3\t-1\n"}, "qrels.tsv:5", "'-1' is not a whole number"),
        ({"qrels": QRELS + "q1 d3 1\n"}, "qrels.tsv:5", "1 columns"),
    ],
)
def test_faults_are_named_with_file_and_line(tmp_path: Path, change: dict, where: str, what: str) -> None:
    folder = write(tmp_path / "task", **change)
    with pytest.raises(InputError) as error:
        read_beir(folder)
    assert error.value.where == str(folder / where)
    assert what in error.value.what


def test_broken_json_and_broken_gzip_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "task")
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "d4", "text": \n')
    with pytest.raises(InputError, match=r"not JSON: Expecting value") as error:
        read_beir(folder)
    assert error.value.where == f"{folder / 'corpus.jsonl'}:4"
    packed = gzip.compress((write(tmp_path / "task") / "corpus.jsonl").read_bytes())
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(packed[:-12])
    with pytest.raises(InputError, match="broken gzip") as error:
        read_beir(folder)
    assert "corpus.jsonl.gz" in str(error.value.where)


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels.tsv"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "task")
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"has no {name}"):
        read_beir(folder)
    with pytest.raises(InputError, match="no such folder"):
        read_beir(tmp_path / "elsewhere")
