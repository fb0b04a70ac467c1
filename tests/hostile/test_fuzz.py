"""Whatever stands in a file: a value or an error with its place, soon; never a traceback and never a hang.

``FUZZ_CASES`` sets the cases of each reader; ``make soak`` sets 10,000. A case is its number: a failure prints it, and
``FUZZ_FIRST`` begins there.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reasoning_embedding import config
from reasoning_embedding.data import readers
from reasoning_embedding.data.beir import read_beir
from reasoning_embedding.data.readers import read_records
from reasoning_embedding.data.rows import BadRows, rows_of
from reasoning_embedding.data.table import build_table
from reasoning_embedding.errors import ReasoningEmbeddingError
from tests.hostile.mutations import any_value, json_lines, mutated, packed

CASES = int(os.environ.get("FUZZ_CASES", "150"))
FIRST = int(os.environ.get("FUZZ_FIRST", "0"))
#: Seconds that a file of a few kilobytes may take.
PATIENCE = 10.0
CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("**/*.yaml"))
CONFIGS = [file for file in CONFIGS if file.parent.name != "accelerate"]
assert len(CONFIGS) > 10

Reader = Callable[[random.Random, Path], object]


class Hang(BaseException):
    """A case took longer than it may; no reader catches it."""


def outcomes(reader: Reader, name: str, folder: Path) -> dict[str, int]:
    """Read every case; how many were read and how many refused. Anything else fails, and says which case."""
    counts = {"read": 0, "refused": 0}

    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    try:
        for case in range(FIRST, FIRST + CASES):
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", RuntimeWarning)  # an overflow is a wrong number
                    reader(random.Random(f"{name} {case}"), folder)
                counts["read"] += 1
            except ReasoningEmbeddingError as error:
                str(error).encode(errors="backslashreplace")  # what is printed
                counts["refused"] += 1
            except BaseException as error:
                error.add_note(f"FUZZ_FIRST={case} of {name}")
                raise
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    print(f"{name}: {CASES} cases, {counts['read']} read, {counts['refused']} refused")
    return counts


def replace_somewhere(tree: Any, chance: random.Random) -> None:
    """Put any value in the place of one of a tree's, or add a key."""
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    if not keys:
        return
    key = chance.choice(keys)
    if isinstance(tree[key], dict | list) and chance.random() < 0.8:
        replace_somewhere(tree[key], chance)
    elif isinstance(tree, dict) and chance.random() < 0.2:
        tree[chance.choice(["kind", "extends", "x", ""])] = any_value(chance)
    else:
        tree[key] = any_value(chance)


def read_yaml(chance: random.Random, folder: Path) -> None:
    """A shipped configuration with changes, and sometimes overrides."""
    path = folder / "x.yaml"
    source = chance.choice(CONFIGS)
    if chance.random() < 0.5:  # its bytes changed
        text = source.read_bytes().replace(b"extends: ", b"extends: " + bytes(source.parent) + b"/")
        path.write_bytes(mutated(text, chance))
    else:  # or its values, written as JSON, which is YAML
        tree = yaml.safe_load(source.read_bytes())
        if "extends" in tree:
            tree["extends"] = str(source.parent / tree["extends"])
        for _ in range(chance.randint(0, 2)):
            replace_somewhere(tree, chance)
        path.write_text(json.dumps(tree), encoding="utf-8")
    words = [
        "name",
        "data.sources.0.path",
        "training.steps",
        "runs.0.seed",
        "a" * 50,
        "recipe.loss",
        "evaluation.tasks",
    ]
    values = [
        mutated(b"[1, {a: 2}]", chance).decode(errors="surrogateescape") for _ in range(chance.randint(0, 2))
    ]
    config.load_config(path, [f"{chance.choice(words)}={value}" for value in values])


def read_rows_(chance: random.Random, folder: Path) -> None:
    """Rows of the trainer, as a table: of good and odd fields, then bytes changed, plain or packed."""
    records = []
    for _ in range(chance.randint(1, 6)):
        record: Any = {"query": ["find", "what"], "pos": ["this"], "neg": ["that"], "source": "s"}
        for _ in range(chance.randint(0, 2)):
            keys = [*record, "pos_scores", "neg_scores", "negative_1", "prompt", "type", "anchor", "positive"]
            record[chance.choice(keys)] = any_value(chance)
        if chance.random() < 0.3:
            record |= {
                "pos_scores": [chance.choice([0.5, 1e308, -1e308, 10**400, True])],
                "neg_scores": [0.1],
            }
        records.append(record if chance.random() < 0.95 else any_value(chance))
    content = json_lines(records)
    if chance.random() < 0.5:
        content = mutated(content, chance)
    path = folder / ("x.jsonl.gz" if chance.random() < 0.3 else "x.jsonl")
    path.write_bytes(packed(content, chance) if path.suffix == ".gz" else content)
    mode = chance.choice(["stop", "skip"])
    sources = [config.FilesSource(kind="files", path=str(path))]
    build_table(config.Data(sources=sources, bad_rows=mode))  # ty: ignore[invalid-argument-type]


def read_tables(chance: random.Random, folder: Path) -> None:
    """The same rows as CSV, TSV, or one JSON array."""
    names = chance.sample(["query", "pos", "neg", "anchor", "positive", "negative_1", "score", "", "a"], 4)
    plain = ["a", "", 'say "x"', "two\nlines", "tab\there", '["a", "b"]']
    odd = ["[" * 900, "1e308", "9" * 5000, "\x1b", "x" * 200_000]
    cells = [[chance.choice(plain if chance.random() < 0.95 else odd) for _ in names] for _ in range(4)]
    suffix = chance.choice([".csv", ".tsv", ".json"])
    if suffix == ".json":
        records = [dict(zip(names, row, strict=True)) for row in cells]
        content = json.dumps(
            [any_value(chance) if chance.random() < 0.1 else record for record in records]
        ).encode()
    else:
        buffer = io.StringIO()
        writer = csv.writer(buffer, delimiter="\t" if suffix == ".tsv" else chance.choice(",;"))
        writer.writerows([["query", "pos", "neg", "a"] if chance.random() < 0.7 else names, *cells])
        content = buffer.getvalue().encode()
    if chance.random() < 0.6:
        content = mutated(content, chance)
    if chance.random() < 0.2:
        suffix, content = f"{suffix}.gz", packed(content, chance)
    path = folder / f"x{suffix}"
    path.write_bytes(content)
    bad = BadRows(chance.choice(["stop", "skip"]))
    list(rows_of(read_records(path), bad, source=None, default_source="x", instruction=None))


def read_beir_(chance: random.Random, folder: Path) -> None:
    """A retrieval task whose files are changed; a file that is read is what was written."""
    corpus = [{"_id": f"d{i}", "title": "t", "text": f"text {i}"} for i in range(4)]
    queries = [{"_id": f"q{i}", "text": f"query {i}"} for i in range(3)]
    qrels = "".join(f"q{i}\td{i}\t{chance.randint(0, 2)}\n" for i in range(3))
    header = chance.choice(["", "query-id\tcorpus-id\tscore\n"])
    for record in (chance.choice(corpus), chance.choice(queries)):
        if chance.random() < 0.3:
            record[chance.choice(list(record))] = any_value(chance)
    files = {
        "corpus.jsonl": json_lines(corpus),
        "queries.jsonl": json_lines(queries),
        "qrels.tsv": (header + qrels).encode(),
        "meta.json": json.dumps(
            {"instruction": any_value(chance) if chance.random() < 0.3 else "find"}
        ).encode(),
    }
    for name in chance.sample(list(files), chance.randint(0, 2)):
        files[name] = mutated(files[name], chance)
    for name, content in files.items():
        (folder / f"{name}.gz").unlink(missing_ok=True)
        (folder / name).unlink(missing_ok=True)
        if name != "meta.json" and chance.random() < 0.2:
            (folder / f"{name}.gz").write_bytes(packed(content, chance))
        else:
            (folder / name).write_bytes(content)
    assert read_beir(folder).fingerprint


def read_parquet(chance: random.Random, folder: Path) -> None:
    """Rows and texts of a parquet or Arrow file with odd columns, types and bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = chance.randint(0, 5)
    types: dict[Any, Callable[[], Any]] = {
        pa.string(): lambda: chance.choice(["a", "", "\0", "x" * 50]),
        pa.large_string(): lambda: "a",
        pa.binary(): lambda: chance.choice([b"\xff", b"", b"abc"]),
        pa.int64(): lambda: chance.choice([0, -(2**63)]),
        pa.float64(): lambda: chance.choice([0.5, 1e308, float("nan")]),
        pa.float16(): lambda: 0.5,
        pa.bool_(): lambda: True,
        pa.null(): lambda: None,
        pa.timestamp("us"): lambda: chance.choice([0, 2**62, -(2**62)]),
        pa.timestamp("ns"): lambda: chance.choice([1, 2**62 + 1]),
        pa.date32(): lambda: chance.choice([0, 2**31 - 1]),
        pa.time64("us"): lambda: 5,
        pa.duration("us"): lambda: chance.choice([0, 2**62]),
        pa.decimal128(38, 10): lambda: 1,
        pa.list_(pa.string()): lambda: chance.choice([["a", "b"], [], ["a", None]]),
        pa.list_(pa.list_(pa.string())): lambda: [["go", "a"]],
        pa.list_(pa.float64()): lambda: chance.choice([[0.5], [1e308, -1e308], [None]]),
        pa.struct([("a", pa.string()), ("b", pa.list_(pa.int32()))]): lambda: {"a": "x", "b": [1]},
        pa.map_(pa.string(), pa.int32()): lambda: [("k", 1), ("k", 2)],
        pa.dictionary(pa.int8(), pa.string()): lambda: "a",
    }
    keys = [
        "query",
        "pos",
        "neg",
        "pos_scores",
        "neg_scores",
        "source",
        "prompt",
        "type",
        "text",
        "_id",
        "",
        "a.b",
        "query",
    ]
    names = chance.sample(keys, chance.randint(1, 5))
    columns = []
    for name in names:
        plain = {"query": pa.string(), "pos": pa.list_(pa.string()), "neg": pa.list_(pa.string())}.get(name)
        kind = plain if plain is not None and chance.random() < 0.7 else chance.choice(list(types))
        columns.append(
            pa.array([types[kind]() if chance.random() < 0.9 else None for _ in range(count)], type=kind)
        )
    table = pa.Table.from_arrays(columns, names=names)
    if chance.random() < 0.3:  # as datasets' save_to_disk writes it
        path = folder / "x.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    else:
        path = folder / "x.parquet"
        pq.write_table(table, path, compression=chance.choice(["none", "snappy", "zstd"]))
    if chance.random() < 0.6:
        path.write_bytes(mutated(path.read_bytes(), chance))
    bad = BadRows(chance.choice(["stop", "skip"]))
    list(rows_of(read_records(path), bad, source=None, default_source="x", instruction=None))


READERS: dict[str, Reader] = {
    "YAML": read_yaml,
    "rows": read_rows_,
    "tables": read_tables,
    "BEIR": read_beir_,
    "parquet": read_parquet,
}


@pytest.mark.parametrize("name", READERS)
def test_every_case_is_read_or_refused_with_a_message(name: str, tmp_path: Path) -> None:
    counts = outcomes(READERS[name], name, tmp_path)
    assert min(counts.values()) > CASES // 50, (
        "a fuzzer whose cases are all read, or all refused, tries nothing"
    )


def test_a_reader_that_lets_an_error_through_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with bare json.loads in the reader's place, the same cases end in a traceback."""
    monkeypatch.setattr(readers, "parse_json", json.loads)
    with pytest.raises(ValueError, match=r".") as caught:
        outcomes(read_rows_, "rows", tmp_path)
    assert "FUZZ_FIRST=" in caught.value.__notes__[0]


def test_a_reader_that_hangs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.PATIENCE", 0.05)
    with pytest.raises(Hang):
        outcomes(lambda chance, folder: time.sleep(1), "none", tmp_path)


def test_cases_are_the_same_every_time(tmp_path: Path) -> None:
    def contents() -> Iterator[bytes]:
        for case in range(5):
            chance = random.Random(f"rows {case}")
            yield mutated(json_lines([any_value(chance)]), chance)

    assert list(contents()) == list(contents())
