"""Sources become one table of distinct texts."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning_embedding import config
from reasoning_embedding.data import Table, load_table
from reasoning_embedding.errors import InputError, SetupError

#: Rows of the mix of real data, by source.
MIX = {
    "clinc150": 15000,
    "medquad": 14314,
    "gsm8k": 7473,
    "cosqa_docstring": 5225,
    "scitldr": 3980,
    "mqp": 1014,
    "trecqa": 342,
}


def write(path: Path, *records: object) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def load(*sources: dict[str, Any], **settings: Any) -> Table:
    return load_table(config.Data.model_validate({"sources": sources, **settings}))


def shown(table: Table, row: int) -> tuple[tuple[str, str], list[str], list[str], str]:
    return (
        table.texts[table.query[row]],
        [table.texts[index][1] for index in table.positives[row]],
        [table.texts[index][1] for index in table.negatives[row]],
        table.sources[table.source[row]],
    )


def test_texts_are_distinct_and_queries_carry_their_prompt(tmp_path: Path) -> None:
    first = write(
        tmp_path / "first.jsonl",
        {"query": ["find {it}", "same"], "pos": ["same", "p"], "neg": ["n", "n"]},
        {"query": "bare", "pos": ["p"]},
    )
    second = write(tmp_path / "second.jsonl", {"query": "bare", "pos": ["n"], "neg": ["p"]})
    table = load(
        {"kind": "files", "path": first},
        {"kind": "files", "path": second, "instruction": "other", "name": "renamed"},
        query_template="<{instruction}> ",
    )
    assert len(table) == 3
    assert len(set(table.texts)) == len(table.texts) == 6
    assert shown(table, 0) == (("<find {it}> ", "same"), ["same", "p"], ["n", "n"], "first")
    assert shown(table, 1) == (("", "bare"), ["p"], [], "first")
    assert shown(table, 2) == (("<other> ", "bare"), ["n"], ["p"], "renamed")
    assert len(table.positives) == len(table.negatives) == 3
    dtypes = [
        table.query.dtype,
        table.positives.values.dtype,
        table.positives.offsets.dtype,
        table.source.dtype,
    ]
    assert dtypes == [np.int32, np.int32, np.int64, np.int16]


def test_limit_reads_that_many_good_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {}, *[{"query": f"q{number}", "pos": ["p"]} for number in range(9)])
    table = load({"kind": "files", "path": path, "limit": 4}, bad_rows="skip")
    assert len(table) == 4
    assert table.skipped == {"no query": 1}


def test_another_data_set_than_the_recipe_means_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *[{"query": f"q{number}", "pos": ["p"]} for number in range(9)])
    assert len(load({"kind": "files", "path": path, "expected_rows": 9})) == 9
    assert len(load({"kind": "files", "path": path, "expected_rows": 12, "limit": 4})) == 4
    with pytest.raises(InputError, match="9 rows, where expected_rows says 12") as caught:
        load({"kind": "files", "path": path, "expected_rows": 12})
    assert caught.value.where == "data.sources[0] (files)"


@pytest.mark.parametrize("bad_rows", ["stop", "skip"])
def test_empty_data_is_an_error(tmp_path: Path, bad_rows: str) -> None:
    with pytest.raises(InputError, match="no rows") as caught:
        load({"kind": "files", "path": write(tmp_path / "a.jsonl")}, bad_rows=bad_rows)
    assert caught.value.where == "data.sources[0] (files)"


def test_all_rows_skipped_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 x no positives"):
        load(
            {"kind": "files", "path": write(tmp_path / "a.jsonl", {"query": "q"}, {"query": "r"})},
            bad_rows="skip",
        )


@given(
    st.lists(
        st.tuples(
            st.text("ab", min_size=1, max_size=2), st.lists(st.text("ab", min_size=1, max_size=2), min_size=1)
        ),
        min_size=1,
        max_size=5,
    )
)
def test_fingerprint_tells_contents_apart(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    folder = tmp_path_factory.mktemp("fingerprint")
    records = [{"query": query, "pos": pos} for query, pos in rows]
    path = write(folder / "a.jsonl", *records)
    fingerprint = load({"kind": "files", "path": path}).fingerprint
    assert len(fingerprint) == 64
    with gzip.open(folder / "a.jsonl.gz", "wt") as file:
        file.write(Path(path).read_text())
    assert load({"kind": "files", "path": f"{path}.gz"}).fingerprint == fingerprint
    moved = records[0] | {"pos": records[0]["pos"][1:] or ["c"], "neg": records[0]["pos"][:1]}
    changed = [
        [*records, records[0]],
        [moved, *records[1:]],
        [records[0] | {"instruction": "go"}, *records[1:]],
        [records[0] | {"source": "b"}, *records[1:]],
    ]
    for version in changed:
        assert load({"kind": "files", "path": write(folder / "a.jsonl", *version)}).fingerprint != fingerprint


def mix(tmp_path: Path, *rows: dict, corpus: tuple = ()) -> dict[str, str]:
    texts = corpus or (
        {"_id": "a", "text": "A"},
        {"_id": "b", "title": "T", "text": "B"},
        {"id": 3, "text": "C"},
    )
    return {
        "kind": "mix",
        "rows": write(tmp_path / "rows.jsonl", *rows),
        "corpus": write(tmp_path / "c.jsonl", *texts),
    }


def test_mix_puts_texts_in_the_place_of_ids(tmp_path: Path) -> None:
    row = {"query": "q", "pos": ["a"], "neg": ["b", 3], "source": "s", "instruction": "go"}
    table = load(mix(tmp_path, row, row | {"source": "t"}, row | {"source": ["s"]}) | {"sources": ["s"]})
    assert len(table) == 1
    assert shown(table, 0) == (("Instruct: go\nQuery: ", "q"), ["A"], ["T B", "C"], "s")


@pytest.mark.parametrize(
    ("row", "corpus", "what", "place"),
    [
        ({"query": "q", "pos": ["zz"]}, (), "an id is not in the corpus: pos 'zz'", "rows.jsonl:1"),
        ({"query": "q", "pos": ["a"], "neg": [["a"]]}, (), "an id is not in the corpus: neg", "rows.jsonl:1"),
        ({"query": "q", "pos": "a"}, (), "pos is not a list of corpus ids", "rows.jsonl:1"),
        ({"query": "q", "neg": ["a"]}, (), "no positives", "rows.jsonl:1"),
        ({"query": "q", "pos": ["a"]}, ({"text": "A"},), "corpus entry without an id", "c.jsonl:1"),
        ({"query": "q", "pos": ["a"]}, ({"_id": "a", "text": ""},), "corpus text is empty", "c.jsonl:1"),
        ({"query": "q", "pos": ["a"]}, (["a", "A"],), "corpus entry is not a JSON object", "c.jsonl:1"),
        (
            {"query": "q", "pos": ["a"]},
            ({"_id": "a", "text": "A"}, {"_id": "a", "text": "B"}),
            "a corpus id stands for two texts",
            "c.jsonl:2",
        ),
    ],
)
def test_mix_problems_have_an_address(
    tmp_path: Path, row: dict, corpus: tuple, what: str, place: str
) -> None:
    source = mix(tmp_path, row, corpus=corpus)
    with pytest.raises(InputError) as caught:
        load(source)
    assert str(caught.value).startswith(f"{tmp_path / place}: {what}")
    good = {"query": "q", "pos": ["good"]}
    corpus = (*(corpus or ({"_id": "a", "text": "A"},)), {"_id": "good", "text": "G"})
    table = load(mix(tmp_path, row, good, corpus=corpus), bad_rows="skip")
    assert table.skipped
    assert shown(table, len(table) - 1)[1] == ["G"]


def test_a_source_name_no_row_has_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rows") as caught:
        load(mix(tmp_path, {"query": "q", "pos": ["a"], "source": "s"}) | {"sources": ["typo"]})
    assert "typo" in str(caught.value.todo)


def test_world_pairs() -> None:
    train, heldout = load({"kind": "world"}), load({"kind": "world", "split": "heldout", "instruction": "go"})
    assert (len(train), len(heldout)) == (128, 32)
    assert train.sources == ["world"]
    assert not train.negatives.values.size
    assert shown(heldout, 0)[0][0] == "Instruct: go\nQuery: "
    assert shown(train, 0)[0][0] == ""


def test_hub_reads_what_datasets_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    folder = tmp_path / "set"
    folder.mkdir()
    write(
        folder / "train.jsonl",
        {"query": "q", "pos": ["p"], "neg": ["n"]},
        {"query": "", "pos": ["p"], "neg": []},
    )
    table = load({"kind": "hub", "dataset": str(folder), "name": "mine"}, bad_rows="skip")
    assert shown(table, 0) == (("", "q"), ["p"], ["n"], "mine")
    assert table.skipped == {"query is empty": 1}
    with pytest.raises(InputError, match="query is empty") as caught:
        load({"kind": "hub", "dataset": str(folder)})
    assert caught.value.where == f"{folder}[train] row 2"
    with pytest.raises(InputError, match="cannot load the data set"):
        load({"kind": "hub", "dataset": str(folder), "split": "nonsense"})


def test_hub_offline_says_so() -> None:
    with pytest.raises(SetupError, match="cannot reach the Hub") as caught:
        load({"kind": "hub", "dataset": "someone/something", "revision": "0" * 40})
    assert caught.value.where == "someone/something[train]"


def test_the_real_mix(real_data: Path, record_property: Callable[[str, object], None]) -> None:
    folder = real_data / "derived" / "mix"
    source = {
        "kind": "mix",
        "rows": str(folder / "train.jsonl.gz"),
        "corpus": str(folder / "corpus.jsonl.gz"),
    }
    start = time.perf_counter()
    table = load(source)
    seconds = time.perf_counter() - start
    assert len(table) == 47_348
    assert dict(zip(table.sources, np.bincount(table.source).tolist(), strict=True)) == MIX
    assert np.diff(table.positives.offsets).min() == 1
    assert len(set(table.texts)) == len(table.texts)
    assert not table.skipped
    with gzip.open(folder / "corpus.jsonl.gz", "rt") as file:
        corpus = {entry["_id"]: entry["text"] for entry in map(json.loads, file)}
    with gzip.open(folder / "train.jsonl.gz", "rt") as file:
        for number, record in enumerate(map(json.loads, file)):
            if number % 97 == 0:
                (prompt, query), positives, negatives, name = shown(table, number)
                assert (query, name) == (record["query"], record["source"])
                assert prompt == f"Instruct: {record['instruction']}\nQuery: "
                assert positives == [corpus[key] for key in record["pos"]]
                assert negatives == [corpus[key] for key in record["neg"]]
    tracemalloc.start()
    load(source | {"limit": 2000})
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    record_property("mix_load_seconds", round(seconds, 2))
    record_property("mix_peak_mib", round(peak, 1))
    # 24 million characters of corpus, once, and no copy of them.
    assert peak < 80
    assert seconds < 30
