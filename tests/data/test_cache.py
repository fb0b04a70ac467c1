"""A cache on disk is the table and the tokens of memory, made once."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from reasoning_embedding import config
from reasoning_embedding.cli.main import main
from reasoning_embedding.data import Plan, Table, cache, load_table, numbering, table_tokens
from reasoning_embedding.data.texts import TextFile, TextList, TextWriter
from reasoning_embedding.errors import InputError, SetupError
from tests.factories import flip

RECORDS = [
    {"query": ["find", "the cat"], "pos": ["a dog", "fish"], "neg": ["the cat", "red moon"], "source": "a"},
    {"query": "the cat", "pos": ["sun"], "pos_scores": [0.5], "source": "b"},
    {"query": ["find", "\u6c34 star"], "pos": ["a dog"], "neg": ["\u6c34 star"], "source": "a"},
    {"query": ""},
]


@pytest.fixture
def data(tmp_path: Path) -> Callable[..., config.Data]:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))

    def make(**changes: Any) -> config.Data:
        source = {"kind": "files", "path": str(rows)}
        given = {"sources": [source], "bad_rows": "skip", "cache_dir": str(tmp_path / "cache"), **changes}
        return config.Data.model_validate(given)

    return make


def same(one: Table, two: Table) -> None:
    assert list(one.texts) == list(two.texts)
    assert (one.sources, one.skipped, one.fingerprint) == (two.sources, two.skipped, two.fingerprint)

    def arrays(table: Table) -> list[np.ndarray | None]:
        lists = (part for each in (table.positives, table.negatives) for part in (each.values, each.offsets))
        return [table.query, table.source, *lists, table.positive_scores, table.negative_scores]

    for left, right in zip(arrays(one), arrays(two), strict=True):
        assert (left is None) == (right is None)
        if left is not None and right is not None:
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)


def test_the_table_on_disk_is_the_one_in_memory(data: Callable[..., config.Data]) -> None:
    memory, disk = load_table(data(cache_dir=None)), load_table(data())
    assert isinstance(disk.texts, TextFile)
    assert isinstance(memory.texts, list)
    same(memory, disk)
    same(memory, load_table(data()))
    plans = [Plan(table, config.Training(batch_size=2, steps=9), data(), 0) for table in (memory, disk)]
    for step in range(1, 10):
        one, two = (plan.at(step) for plan in plans)
        np.testing.assert_array_equal(one.query, two.query)
        np.testing.assert_array_equal(one.negative, two.negative)
        np.testing.assert_array_equal(one.score, two.score)


def test_rows_without_negatives_that_come_from_no_file_are_cached_alike(tmp_path: Path) -> None:
    given = config.Data.model_validate({"sources": [{"kind": "world", "limit": 50}]})
    disk = load_table(given.model_copy(update={"cache_dir": str(tmp_path)}))
    same(load_table(given), disk)
    assert isinstance(disk.texts, TextFile)
    assert len(disk) == 50
    assert len(disk.negatives.values) == 0


def test_a_second_start_reads_no_rows_and_makes_no_tokens(
    data: Callable[..., config.Data], tiny_tokenizer: Path, tmp_path: Path
) -> None:
    def made() -> dict[str, int]:
        """When each folder of the cache was made."""
        found = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
        return {path.name: path.stat().st_mtime_ns for path in found}

    tokenizer, rows = AutoTokenizer.from_pretrained(tiny_tokenizer), tmp_path / "rows.jsonl"
    first = load_table(data())
    memory = table_tokens(first, tokenizer, data(cache_dir=None))
    disk = table_tokens(first, tokenizer, data())
    for store in (disk, table_tokens(first, tokenizer, data())):
        for name in ("values", "offsets", "prompt_lengths"):
            np.testing.assert_array_equal(getattr(store, name), getattr(memory, name))
    before = made()
    assert len(before) == 2
    # Rows that nobody could read, in a file that looks as it did.
    times = (rows.stat().st_atime_ns, rows.stat().st_mtime_ns)
    rows.write_text("x" * rows.stat().st_size)
    os.utime(rows, ns=times)
    # Padding and truncation that a library left switched on change no key.
    tokenizer(["the cat", "sun"], padding=True, truncation=True, max_length=3)
    again = table_tokens(load_table(data()), AutoTokenizer.from_pretrained(tiny_tokenizer), data())
    np.testing.assert_array_equal(again.values, memory.values)
    np.testing.assert_array_equal(table_tokens(first, tokenizer, data()).values, memory.values)
    assert made() == before
    for number, changes in enumerate(({"query_max_tokens": 9}, {"document_max_tokens": 9}), 1):
        table_tokens(first, tokenizer, data(**changes))
        assert len(made()) == 2 + number  # another key
    tokenizer.add_tokens(["moon!"])
    table_tokens(first, tokenizer, data())
    assert len(made()) == 5


def test_changed_rows_are_read_again(data: Callable[..., config.Data], tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    assert len(load_table(data())) == 3
    before = rows.stat()
    rows.write_text(rows.read_text().replace('"sun"', '"son"'))
    os.utime(rows, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert ("", "son") in load_table(data()).texts
    assert load_table(data(query_template="{instruction}: ")).texts[0] == ("find: ", "the cat")
    assert len(list((tmp_path / "cache").glob("rows-*"))) == 3


def test_what_was_stopped_half_way_is_made_again(
    data: Callable[..., config.Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = cache.build_table

    def stopped(*arguments: Any) -> None:
        build(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "build_table", stopped)
        with pytest.raises(KeyboardInterrupt):
            load_table(data())
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    (tmp_path / "cache").joinpath(".rows-x.partial").mkdir()  # what SIGKILL leaves
    assert len(load_table(data())) == 3
    with pytest.raises(InputError, match="query is empty"):
        load_table(data(bad_rows="stop"))


def _folder(cache: Path, kind: str) -> Path:
    [found] = [path for path in cache.glob(f"{kind}-*") if path.is_dir()]
    return found


def test_a_byte_of_any_file_of_a_cache_is_missed_and_the_cache_made_again(
    data: Callable[..., config.Data], tiny_tokenizer: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer)
    memory = load_table(data(cache_dir=None))
    tokens = table_tokens(memory, tokenizer, data(cache_dir=None))
    load_table(data())
    table_tokens(memory, tokenizer, data())
    tried = 0
    for kind in ("rows", "tokens"):
        folder = _folder(tmp_path / "cache", kind)
        for number, name in enumerate(sorted(file.name for file in folder.iterdir())):
            if not (size := (folder / name).stat().st_size):
                continue
            flip(folder / name, (0, size // 2, size - 1)[number % 3])
            said: list[str] = []
            table = load_table(data(), said.append)
            store = table_tokens(table, tokenizer, data(), report=said.append)
            same(memory, table)
            np.testing.assert_array_equal(store.values, tokens.values)
            assert len(said) == 1, name
            assert "it is made again" in said[0]
            tried += 1
    assert tried > 12


@pytest.mark.parametrize("kind", ["rows", "tokens"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: next(folder.glob("*.bin")).unlink(),
        lambda folder: (folder / "sums.json").unlink(),
        lambda folder: (folder / "sums.json").write_text("[]"),
        lambda folder: (folder / "sums.json").write_text('{"files": {"x": 3}}'),
        lambda folder: [file.write_bytes(file.read_bytes()[:-4]) for file in folder.glob("*.bin")],
        shutil.rmtree,
        lambda folder: (shutil.rmtree(folder), folder.write_text("a file")),
    ],
)
def test_a_cache_that_lacks_something_is_made_again(
    data: Callable[..., config.Data],
    tiny_tokenizer: Path,
    tmp_path: Path,
    kind: str,
    damage: Callable[[Path], Any],
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer)
    store = table_tokens(load_table(data()), tokenizer, data())
    values = store.values.copy()
    damage(_folder(tmp_path / "cache", kind))
    for said_now in (1, 0):
        said: list[str] = []
        table = load_table(data(), said.append)
        again = table_tokens(table, tokenizer, data(), report=said.append)
        np.testing.assert_array_equal(again.values, values)
        assert len(said) <= said_now
    same(load_table(data(cache_dir=None)), table)


def test_large_files_are_kept_on_disk_unasked(
    data: Callable[..., config.Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows = tmp_path / "unasked", tmp_path / "rows.jsonl"
    plain = data(cache_dir=None)
    assert cache.on_disk(plain, folder) is plain
    monkeypatch.setattr(cache, "LARGE", rows.stat().st_size)
    large = cache.on_disk(plain, folder)
    assert large.cache_dir == str(folder)
    same(load_table(large), load_table(plain))
    assert isinstance(load_table(large).texts, TextFile)
    assert cache.on_disk(data(), folder) == data()  # its own folder
    monkeypatch.setattr(cache, "LARGE", rows.stat().st_size + 1)
    assert cache.on_disk(plain, folder) is plain
    packed = rows.with_suffix(".jsonl.gz")
    packed.write_bytes(gzip.compress(rows.read_bytes()))
    monkeypatch.setattr(cache, "LARGE", 4 * packed.stat().st_size)
    files = {"kind": "files", "path": str(packed)}
    assert cache.on_disk(data(cache_dir=None, sources=[files]), folder).cache_dir
    # Nobody could tell when a Hub data set without a revision changes.
    floating = data(cache_dir=None, sources=[files, {"kind": "hub", "dataset": "a/b"}])
    assert cache.on_disk(floating, folder) is floating


def test_a_cache_that_cannot_be_written_is_named(data: Callable[..., config.Data], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="cannot write the cache"):
        load_table(data(cache_dir=str(tmp_path / "file")))


pairs = st.tuples(st.sampled_from(["", "p", "pq"]), st.text("ab\u00e9\u6c34 ", max_size=4))


@settings(max_examples=50, deadline=None)
@given(st.lists(pairs, max_size=40))
def test_texts_are_numbered_as_in_memory(tmp_path_factory: pytest.TempPathFactory, given_: list) -> None:
    folder = tmp_path_factory.mktemp("texts")
    disk, memory = TextWriter(folder), TextList()
    assert [disk.add(*pair) for pair in given_] == [memory.add(*pair) for pair in given_]
    read, held = disk.close(), memory.close()
    assert list(read) == held
    assert len(read) == len(held)
    for cut in (
        slice(None),
        slice(1, 3),
        slice(5, 2),
        slice(-2, None),
        slice(None, None, 2),
        slice(None, None, -1),
    ):
        assert read[cut] == held[cut]
    for place in range(-len(held), len(held)):
        assert read[place] == held[place]
    with pytest.raises(IndexError):
        read[len(held)]


def test_more_texts_than_a_table_begins_with_keep_their_numbers(tmp_path: Path) -> None:
    writer = TextWriter(tmp_path)
    assert [writer.add("", f"text {number}") for number in range(3000)] == list(range(3000))
    assert [writer.add("", f"text {number}") for number in range(3000)] == list(range(3000))
    assert len(writer.close()) == 3000


def test_keys_that_share_a_slot_and_half_a_digest_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Digest:
        """Eight equal bytes, then eight of the key's own: every key falls on one slot."""

        def __init__(self, key: bytes, digest_size: int) -> None:
            self._key = key

        def digest(self) -> bytes:
            return bytes(8) + self._key.rjust(8, b"\0")

    monkeypatch.setattr(numbering, "blake2b", Digest)
    keys = [b"%d" % number for number in range(601)]
    numbers = numbering.Numbering(tmp_path)
    assert [numbers.number(key) for key in keys[:600]] == list(
        range(600)
    )  # more than half the slots: they grow
    assert [numbers.number(key) for key in keys[:600]] == list(range(600))
    assert numbers.number(keys[600]) == 600


def test_memory_does_not_grow_with_the_length_of_texts(tmp_path: Path) -> None:
    def peak(texts: TextList | TextWriter) -> int:
        tracemalloc.start()
        for number in range(4000):
            texts.add("", f"{number} " * 500)
        closed = texts.close()
        assert len(closed) == 4000
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(TextWriter(tmp_path)) < 3_000_000 < 8_000_000 < peak(TextList())


def test_a_cache_is_prepared_by_a_verb(
    data: Callable[..., config.Data], tmp_path: Path, tiny_backbone: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "run.yaml"
    source = {"kind": "files", "path": str(tmp_path / "rows.jsonl")}
    settings_ = {
        "kind": "run",
        "name": "x",
        "backbone": {"kind": "pretrained", "path": str(tiny_backbone)},
        "data": {"sources": [source], "bad_rows": "skip"},
    }
    file.write_text(json.dumps(settings_))

    def run(*words: str) -> int:
        with pytest.raises(SystemExit) as caught:
            main(["data", "prepare", str(file), *words])
        return int(caught.value.code or 0)

    assert run() == 2
    assert "data.cache_dir" in capsys.readouterr().err
    assert run(f"data.cache_dir={tmp_path / 'cache'}") == 0
    assert "3 rows" in capsys.readouterr().out
    assert len(list((tmp_path / "cache").glob("tokens-*"))) == 1
