"""Files of every format are read as they are, and broken ones end in an InputError."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from reasoning_embedding.data.readers import data_files, file_stem, read_records
from reasoning_embedding.data.rows import BadRows, Row, rows_of
from reasoning_embedding.errors import InputError

GOOD = {"query": "q", "pos": ["p"], "neg": ["n"]}


def rows(path: Path, policy: str = "stop") -> tuple[list[Row], dict[str, int]]:
    bad = BadRows(policy)  # ty: ignore[invalid-argument-type]
    found = [
        row
        for file in data_files(path)
        for row in rows_of(
            read_records(file), bad, source=None, default_source=file_stem(file), instruction=None
        )
    ]
    return found, dict(bad.counts)


def lines(*records: object) -> bytes:
    return b"".join(
        record if isinstance(record, bytes) else json.dumps(record).encode() + b"\n" for record in records
    )


def test_a_folder_of_every_kind(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines(GOOD, b"\r\n", GOOD | {"query": "caf\u00e9"}))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines(GOOD | {"query": "two"})))
    (tmp_path / "deeper").mkdir()
    table = pa.table({"query": [["go", "three"]], "pos": [["p"]], "neg": [["n", "m"]], "score": [1.5]})
    pq.write_table(table, tmp_path / "deeper" / "c.parquet")
    (tmp_path / "notes.txt").write_text("not data")
    (tmp_path / ".hidden.jsonl").write_text("not data")
    found, _ = rows(tmp_path)
    assert [(row.query, row.instruction, row.source, len(row.negatives)) for row in found] == [
        ("q", None, "a", 1),
        ("caf\u00e9", None, "a", 1),
        ("two", None, "b", 1),
        ("three", "go", "c", 2),
    ]


@pytest.mark.parametrize(
    ("content", "place", "what"),
    [
        (lines(GOOD, b"{oops}\n"), "2", "not JSON"),
        (lines(GOOD, GOOD, b'{"query": "\xff"}\n'), "3", "not UTF-8"),
        (lines(b"\n\n", b"\0\0\0\n"), "3", "not JSON"),
        (b"[" * 100_000 + b"\n", "1", "JSON that cannot be read|not JSON"),
        (b'{"query": ' + b"9" * 5000 + b"}", "1", "JSON that cannot be read"),
        ('{"query": "q", "pos": ["p"]}'.encode("utf-16"), "1", "not UTF-8"),
        (json.dumps([GOOD], indent=1).encode(), "1", "not JSON"),
    ],
)
def test_a_bad_line_has_an_address(tmp_path: Path, content: bytes, place: str, what: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        rows(path)
    assert caught.value.where == f"{path}:{place}"
    assert re.match(what, caught.value.what)
    assert caught.value.todo


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize("damage", ["cut", "header", "middle", "not gzip"])
def test_broken_gzip_stops_even_when_skipping(tmp_path: Path, damage: str, policy: str) -> None:
    content = bytearray(gzip.compress(lines(*[GOOD | {"query": f"q{number}"} for number in range(500)])))
    if damage == "cut":
        del content[-20:]
    elif damage == "header":
        content[2] = 0
    elif damage == "middle":
        content[len(content) // 2 :] = bytes(len(content) // 2)
    else:
        content[:] = lines(GOOD)
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="broken gzip") as caught:
        rows(path, policy)
    assert str(caught.value.where).startswith(f"{path}:")


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        rows(tmp_path / "missing.jsonl")
    with pytest.raises(InputError, match="no data files"):
        rows(tmp_path)
    for name, what in (("rows.xlsx", "unknown kind"), ("rows.parquet", "cannot read the parquet file")):
        (tmp_path / name).write_bytes(b"query,pos\nq,p\n")
        with pytest.raises(InputError, match=what):
            rows(tmp_path / name)


def test_parquet_strings_that_are_not_utf8(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    offsets, content = pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"q\xff")
    query = pa.StringArray.from_buffers(2, offsets, content)
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"query": query, "positive": ["p", "p"]}), path)
    found, counts = rows(path, "skip")
    assert [row.query for row in found] == ["q"]
    assert counts == {"not UTF-8": 1}
    with pytest.raises(InputError) as caught:
        rows(path)
    assert caught.value.where == f"{path}: row 2"


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["query", "pos", "neg", "prompt", "instruction", "source", "negative_1"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
LINE = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass")),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.just(json.dumps(GOOD).encode()),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.lists(LINE, max_size=6).map(b"\n".join), packed=st.booleans())
@example(content=b'{"query": "\\ud800", "pos": ["p"]}', packed=False)
@example(content=b"\xef\xbb\xbf", packed=False)
def test_no_bytes_give_a_traceback(tmp_path: Path, content: bytes, packed: bool) -> None:
    path = tmp_path / ("rows.jsonl.gz" if packed else "rows.jsonl")
    path.write_bytes(gzip.compress(content) if packed else content)
    kept, counts = rows(path, "skip")
    assert len(kept) + sum(counts.values()) == sum(
        bool(line.strip(b" \t\r\n\v\f")) for line in _lines(content)
    )
    for row in kept:
        assert row.query.strip()
        assert row.positives
        assert all(text.encode() for text in (*row.positives, *row.negatives))
    if counts:
        with pytest.raises(InputError) as caught:
            rows(path)
        assert str(caught.value.where).startswith(f"{path}:")
    else:
        assert rows(path)[0] == kept


def _lines(content: bytes) -> list[bytes]:
    return content.removeprefix(b"\xef\xbb\xbf").split(b"\n")


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.parquet"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_no_bytes_of_a_container_give_a_traceback(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    if content:
        with pytest.raises(InputError) as caught:
            rows(path)
        assert str(path) in str(caught.value.where)
    else:
        # An empty file is a valid, empty gzip stream and no parquet file.
        with contextlib.suppress(InputError):
            assert rows(path) == ([], {})


@pytest.mark.parametrize(
    ("pattern", "count", "negatives", "instructed"),
    [
        ("flagembedding_examples/retrieval_msmarco.jsonl", 10, 25, True),
        ("flagembedding_examples/retrieval_nli.jsonl", 10, 1, True),
        ("flagembedding_examples/retrieval_nq.jsonl.gz", 10, 79, True),
        ("flagembedding_examples/sts_sts.jsonl", 10, 28, True),
        ("flagembedding_examples/classification-no_in_batch_neg_AmazonClassification.jsonl", 10, 4, True),
        ("flagembedding_examples/classification-no_in_batch_neg_Banking77Classification.jsonl", 10, 30, True),
        ("flagembedding_examples/clustering-no_in_batch_neg_arXiv_title.jsonl", 10, 16, True),
        ("flagembedding_examples/clustering-no_in_batch_neg_bioRXiv_title.jsonl", 10, 24, True),
        ("gritlm_toy/toy_data_toy_data_embedding.jsonl", 10, 7, False),
        ("gritlm_toy/toy_data_instruct_toy_data_embedding.jsonl", 10, 7, True),
    ],
)
def test_samples_of_other_trainers(
    real_data: Path, pattern: str, count: int, negatives: int, instructed: bool
) -> None:
    found, _ = rows(real_data / pattern)
    assert len(found) == count
    assert min(len(row.negatives) for row in found) == negatives
    assert all(len(row.positives) == 1 for row in found)
    assert all((row.instruction is not None) == instructed for row in found)


def test_a_row_of_gritlm_keeps_its_texts(real_data: Path) -> None:
    found, _ = rows(real_data / "gritlm_toy/toy_data_instruct_toy_data_embedding.jsonl")
    assert found[0].query == "Five women walk along a beach wearing flip-flops."
    assert found[0].instruction == "Represent this text:"
    assert found[0].positives == ("Some women with flip-flops on, are walking along the beach",)
    assert found[0].negatives[0] == "The 4 women are sitting on the beach."


def test_rows_of_a_language_model_are_refused(real_data: Path) -> None:
    with pytest.raises(InputError, match="no query: its fields: text"):
        rows(real_data / "gritlm_toy/toy_data_toy_data_generative.jsonl")


def test_the_whole_flagembedding_folder(real_data: Path) -> None:
    found, _ = rows(real_data / "flagembedding_examples")
    assert len(found) == 80
    assert len({row.source for row in found}) == 8
