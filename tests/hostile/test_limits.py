"""What a hostile file may cost, and what a broken one must not lose: each limit with a file just within it."""

from __future__ import annotations

import gzip
import json
import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from reasoning_embedding import config
from reasoning_embedding.config import load_config
from reasoning_embedding.data import lines
from reasoning_embedding.data.beir import read_beir
from reasoning_embedding.data.lines import LONGEST, read_lines
from reasoning_embedding.data.readers import data_files, read_records
from reasoning_embedding.data.rows import RowProblem, parse_row
from reasoning_embedding.data.table import build_table
from reasoning_embedding.errors import ConfigError, InputError
from tests.factories import run_settings, write_lines

RUN = json.dumps(run_settings())[1:-1]
ROW = {"query": "q", "pos": ["p"], "neg": ["n"]}


def problems(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return [problem.removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 100_000,
        "a: " + "{a: " * 100_000,
        "a: " + "[" * 100_000 + "]" * 100_000,
        "".join(" " * depth + "a:\n" for depth in range(2000)),
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 2000)),
    ],
)
def test_deep_yaml_is_refused_before_it_is_composed(tmp_path: Path, text: str) -> None:
    """libyaml composes by recursion in C: 100,000 levels were a segmentation fault."""
    started = time.monotonic()
    found = problems(tmp_path, text)
    assert found[0].startswith("x.yaml:")
    assert "nested more than 60 levels deep" in found[0]
    assert time.monotonic() - started < 5


def test_depth_within_the_limit_is_read(tmp_path: Path) -> None:
    assert (
        "it must be a list" in problems(tmp_path, "{" + RUN + ', "seed": ' + "[" * 50 + "]" * 50 + "}")[0]
        or True
    )
    found = problems(tmp_path, "{" + RUN + ', "seed": ' + "[" * 50 + "]" * 50 + "}")
    assert found == [
        "x.yaml:1:" + found[0].split(":")[2] + ": seed is a list of 1; it must be a whole number"
    ]


def test_ten_thousand_unknown_keys_take_a_moment(tmp_path: Path) -> None:
    """Each was compared with every key of every section: 12 s."""
    keys = "".join(f', "unknwn_{i}": 1' for i in range(10_000))
    started = time.process_time()
    found = problems(tmp_path, "{" + RUN + keys + "}")
    assert time.process_time() - started < 4
    assert len(found) == 101
    assert found[-1] == "x.yaml: and 9900 more, of which nothing is shown"
    assert "unknown key 'unknwn_0'" in found[0]


def test_a_key_of_a_million_letters_is_not_compared(tmp_path: Path) -> None:
    started = time.process_time()
    [found] = problems(tmp_path, "{" + RUN + f', ? "{"k" * 1_000_000}" : 1' + "}")
    assert "unknown key 'kkk" in found
    assert len(found) < 500
    assert time.process_time() - started < 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: " + "9" * 4000, "a number of 4000 digits"),
        ("seed: 0x" + "f" * 3900, "a number of 3902 digits"),
        ('extends: "a\\0b"', "a NUL character"),
        ('extends: "' + "a" * 5000 + '"', "cannot be read: File name too long"),
        ('name: "\\ud800"', "not valid YAML"),
        ("x: " + "y" * 5 * 2**20, "more than 4 MiB"),
        ("extends: x.yaml", "extends goes round in a circle"),
    ],
)
def test_values_that_no_configuration_has(tmp_path: Path, text: str, said: str) -> None:
    assert said in "\n".join(problems(tmp_path, text))


def test_a_key_path_of_a_thousand_parts_is_refused(tmp_path: Path) -> None:
    found = problems(tmp_path, "{" + RUN + "}", ".".join("a" * 1000) + "=1")
    assert "a key path of 1000 parts" in found[0]


def test_files_that_share_a_base_read_it_once(tmp_path: Path) -> None:
    """Eighteen levels of two files that extend the same two were 2^18 readings."""
    for level in range(18):
        for name in "ab":
            below = f"[a{level + 1}.yaml, b{level + 1}.yaml]"
            (tmp_path / f"{name}{level}.yaml").write_text(f"extends: {below}\n")
    for name in "ab":
        (tmp_path / f"{name}18.yaml").write_text("{" + RUN + "}")
    started = time.process_time()
    loaded = load_config(tmp_path / "a0.yaml")
    assert len(loaded.sources) == 37
    assert time.process_time() - started < 4
    for level in range(40):
        (tmp_path / f"c{level}.yaml").write_text(f"extends: c{level + 1}.yaml\n")
    with pytest.raises(ConfigError, match="more than 20 files extend one another"):
        load_config(tmp_path / "c0.yaml")


def test_a_device_is_no_configuration_and_no_data(tmp_path: Path) -> None:
    """Reading them would never end."""
    with pytest.raises(ConfigError, match="more than 4 MiB"):
        load_config("/dev/zero")
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(InputError, match="not a regular file"):
        data_files(tmp_path / "pipe.jsonl")


@pytest.mark.parametrize("path", ["~nobody-has-this-name/x", "a\0b", "a" * 5000])
def test_paths_that_no_system_has_are_said(path: str) -> None:
    with pytest.raises(InputError, match=r"no path of this system|no such file"):
        data_files(path)


def test_a_gzip_of_one_line_is_refused_in_little_memory(tmp_path: Path) -> None:
    """2 GiB in a line took 8 GB of memory."""
    path = tmp_path / "x.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(LONGEST // 2**20 + 8):
            file.write(b" " * 2**20)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="a line of more than 64 MiB") as caught:
            list(read_records(path))
        assert tracemalloc.get_traced_memory()[1] < 4 * LONGEST
    finally:
        tracemalloc.stop()
    assert caught.value.where == f"{path}:1"


def test_a_gzip_that_grows_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_UNQUESTIONED", 2**20)
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"query": "q"}\n' * 2_000_000))
    with pytest.raises(InputError, match="more than 400 times as large"):
        for _ in read_lines(path):
            pass
    # Within the limit: rows that differ a little, as real ones do.
    path.write_bytes(gzip.compress(b"".join(b'{"query": "q%d"}\n' % i for i in range(200_000))))
    assert sum(1 for _ in read_lines(path)) == 200_000


def test_lines_are_those_that_were_written(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfa\r\n\n\xef\xbb\xbfb\nlast"
    (tmp_path / "x").write_bytes(content)
    (tmp_path / "x.gz").write_bytes(gzip.compress(content))
    expected = [(1, b"a\r\n"), (2, b"\n"), (3, b"\xef\xbb\xbfb\n"), (4, b"last")]
    assert list(read_lines(tmp_path / "x")) == list(read_lines(tmp_path / "x.gz")) == expected


@pytest.mark.parametrize(
    "score", [1e308, -1e308, 10**400, -(10**400), float("nan"), float("inf"), True, "1", None]
)
def test_scores_that_float32_cannot_hold_are_no_scores(score: object) -> None:
    with pytest.raises(RowProblem, match="score is not a number"):
        parse_row(
            ROW | {"pos_scores": [score], "neg_scores": [0]},
            source=None,
            default_source="s",
            instruction=None,
        )


def test_the_largest_score_is_finite_where_it_is_compared(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [ROW | {"pos_scores": [1e30], "neg_scores": [-1e30]}])
    table = build_table(config.Data(sources=[config.FilesSource(kind="files", path=str(path))]))
    assert table.positive_scores is not None
    assert table.negative_scores is not None
    assert np.isfinite(table.positive_scores - table.negative_scores).all()


def test_odd_parquet_values_have_an_address(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "x.parquet"
    far = pa.array([0, 2**62], type=pa.timestamp("us"))
    pq.write_table(pa.table({"query": ["a", "b"], "pos": [["c"], ["d"]], "when": far}), path)
    (where, first), (_, second) = read_records(path)
    assert where == f"{path}: row 1"
    assert isinstance(first, dict)
    assert isinstance(second, RowProblem)
    assert second.reason == "a value that cannot be read"


def task(folder: Path, qrels: str) -> Path:
    write_lines(folder / "corpus.jsonl", [{"_id": "d1", "text": "a"}, {"_id": "d2", "text": "b"}])
    write_lines(folder / "queries.jsonl", [{"_id": "q1", "text": "q"}, {"_id": "q2", "text": "r"}])
    (folder / "qrels.tsv").write_text(qrels)
    return folder


def test_judgements_without_a_header_lose_none(tmp_path: Path) -> None:
    assert read_beir(task(tmp_path, "q1\td1\t1\nq2\td2\t1\n")).qrels == {"q1": {"d1": 1}, "q2": {"d2": 1}}
    # Any header is one, by whatever words.
    for header in ("query-id\tcorpus-id\tscore", "qid\tdocid\trelevance"):
        assert read_beir(task(tmp_path, f"{header}\nq2\td2\t1\n")).qrels == {"q2": {"d2": 1}}
    # A first judgement with an odd grade was taken for a header, and the score was another one.
    for grade in ("1.0", "high", "1 ", "", "1e0", "9" * 5000):
        qrels = f"q1\td1\t{grade}\nq2\td2\t1\n"
        if grade == "1 ":
            assert read_beir(task(tmp_path, qrels)).qrels["q1"] == {"d1": 1}
            continue
        with pytest.raises(InputError, match=r"is not a whole number from 0") as caught:
            read_beir(task(tmp_path, qrels))
        assert caught.value.where == f"{tmp_path / 'qrels.tsv'}:1"


def test_lone_surrogates_of_a_task_have_an_address(tmp_path: Path) -> None:
    folder = task(tmp_path, "q1\td1\t1\n")
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "a"}\n{"_id": "d2", "text": "\\ud800"}\n')
    with pytest.raises(InputError, match="lone surrogate") as caught:
        read_beir(folder)
    assert caught.value.where == f"{folder / 'corpus.jsonl'}:2"
