"""Records of files: JSON Lines, JSON arrays, CSV and TSV (.gz too), parquet, and folders that save_to_disk wrote."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json

from .lines import LONGEST, read_blocks, read_lines, regular_file
from .rows import Record, RowProblem

if TYPE_CHECKING:
    import pyarrow as pa

#: What values that Python has no object for raise: bytes that are no text, times out of range.
_ODD = (ArithmeticError, LookupError, TypeError, ValueError)
_LARGEST_BATCH = 2**30

JSONL_SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz")
_ARRAY_SUFFIXES = (".json", ".json.gz")
TABLE_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
PARQUET_SUFFIX = ".parquet"
#: One shard of what datasets' save_to_disk wrote.
_ARROW_SUFFIX = ".arrow"
#: Not .json: most of those beside data describe it.
_FOLDER_SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", *TABLE_SUFFIXES, PARQUET_SUFFIX)


def data_files(path: str | Path) -> list[Path]:
    """The data files a path stands for: itself, or those of a folder and its subfolders by name.

    A folder that ``save_to_disk`` of datasets wrote stands for its shards, in their order.

    Raises
    ------
    InputError
        If there is no such path, or the folder has no file of a known kind, or several saved splits.
    """
    path = _expanded(Path(path))
    if path.is_dir():
        if (saved := _saved_shards(path)) is not None:
            return saved
        found = sorted(
            file
            for file in path.rglob("*")
            if file.name.endswith(_FOLDER_SUFFIXES)
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        if not found:
            raise InputError("no data files in this folder", where=str(path), todo=f"put {_known()} there")
        return found
    if not path.exists():
        todo = "check the path in data.sources; it starts at the folder that the command runs in"
        raise InputError("no such file or folder", where=str(path.absolute()), todo=todo)
    return [regular_file(path)]


def _saved_shards(folder: Path) -> list[Path] | None:
    """Shards of a folder that ``save_to_disk`` wrote; None for any other folder."""
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        names = _saved_list(splits, "splits")
        if len(names) > 1:
            raise InputError(
                f"this folder holds the splits {', '.join(names)}",
                where=str(folder),
                todo=f"name the one to read: {folder / ('train' if 'train' in names else names[0])}",
            )
        folder = folder / names[0]
    state = folder / "state.json"
    if not state.is_file() or not (folder / "dataset_info.json").is_file():
        return None
    return [regular_file(folder / name) for name in _saved_list(state, "_data_files")]


def _saved_list(file: Path, key: str) -> list[str]:
    """The names that a list of save_to_disk holds."""
    found = read_json(file).get(key)
    entries = found if isinstance(found, list) else []
    names = [entry.get("filename") if isinstance(entry, dict) else entry for entry in entries]
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise InputError(f"it has no list {key} of names", where=str(file), todo="save the data set again")
    return [str(name) for name in names]


def _expanded(path: Path) -> Path:
    """Return a path with the home folder in it, and refuse what no system can look for."""
    try:
        path = path.expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        what = f"no path of this system ({getattr(error, 'strerror', None) or error})"
        raise InputError(what, where=str(path)[:300], todo="check the path in data.sources") from error
    return path


def is_data_file(name: str) -> bool:
    """Whether a name ends as that of a file that can be read here."""
    return name.endswith((*_FOLDER_SUFFIXES, *JSONL_SUFFIXES))


def file_stem(path: Path) -> str:
    """The name of a data file without its suffixes: the default name of its source."""
    if path.name.endswith(_ARROW_SUFFIX):  # a shard's own name says nothing
        return path.parent.name
    name = path.name.removesuffix(".gz")
    return next((name.removesuffix(end) for end in _FOLDER_SUFFIXES if name.endswith(end)), Path(name).stem)


def read_records(path: Path) -> Iterator[Record]:
    """Records of one file, each with its place; a record that cannot be read is a :class:`RowProblem`.

    Parameters
    ----------
    path : Path
        JSON Lines (``.jsonl``, ``.ndjson``, ``.json``), one JSON array (``.json``), ``.csv`` or ``.tsv`` with the names
        of its columns in the first line, each also ``.gz``; ``.parquet``; a shard of ``save_to_disk`` (``.arrow``).

    Raises
    ------
    InputError
        If the file as a whole cannot be read: its kind is unknown, it is missing, or its compression
        or container is broken. That stops whatever ``data.bad_rows`` says, because nobody knows how
        many rows are lost.
    """
    if path.name.endswith(PARQUET_SUFFIX):
        return _parquet(path)
    if path.name.endswith(_ARROW_SUFFIX):
        return _arrow(path)
    if path.name.endswith(TABLE_SUFFIXES):
        return _table(path)
    if path.name.endswith(_ARRAY_SUFFIXES) and _holds_an_array(path):
        return _json_array(path)
    if path.name.endswith(JSONL_SUFFIXES):
        return _json_lines(path)
    raise InputError(f"unknown kind of data file {path.suffix!r}", where=str(path), todo=f"use {_known()}")


def _known() -> str:
    return "JSON Lines (.jsonl), JSON arrays (.json), .csv, .tsv (each also .gz) or .parquet files"


def _json_lines(path: Path) -> Iterator[Record]:
    for number, line in read_lines(path):
        if line.strip():
            yield f"{path}:{number}", parse_json(line)


def _holds_an_array(path: Path) -> bool:
    """Whether the first character of a file is the bracket of an array."""
    for block in read_blocks(path, 4096):
        if start := block.lstrip():
            return start.startswith(b"[")
    return False


def _json_array(path: Path) -> Iterator[Record]:
    """Entries of one JSON array; memory holds an entry and a block of the file."""
    text, number = _JsonText(path), 0
    text.take("[")
    while text.next_character() != "]":
        if number:
            text.take(",")
        number += 1
        yield f"{path}: entry {number}", text.take_value()
    text.take("]")
    if text.next_character():
        raise text.broken("there is more after its ]")


class _JsonText:
    """A JSON file from front to back."""

    def __init__(self, path: Path) -> None:
        self._path, self._blocks = path, read_blocks(path)
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._text, self._place, self._line, self._ended = "", 0, 1, False

    def broken(self, what: str) -> InputError:
        """The error of what stands here."""
        line = self._line + self._text.count("\n", 0, self._place)
        todo = "write the file again, or as JSON Lines"
        return InputError(f"broken JSON array ({what})", where=f"{self._path}:{line}", todo=todo)

    def next_character(self) -> str:
        """The next character that is no white space; none at the end."""
        while True:
            while self._place < len(self._text):
                if not self._text[self._place].isspace():
                    return self._text[self._place]
                self._place += 1
            if not self._more():
                return ""

    def take(self, mark: str) -> None:
        """Go past a character that has to be here."""
        if (found := self.next_character()) != mark:
            raise self.broken(f"found {found!r} for {mark!r}" if found else f"the file ends before {mark!r}")
        self._place += 1

    def take_value(self) -> object:
        """Go past a value and return it."""
        self.next_character()
        while True:
            try:
                value, self._place = json.JSONDecoder().raw_decode(self._text, self._place)
                return value
            except json.JSONDecodeError as error:
                # A value that goes on in the next blocks looks broken, too. Twice as many are read each time.
                before = len(self._text) - self._place
                if before > LONGEST:
                    raise self.broken(f"an entry of more than {LONGEST // 2**20} MiB") from error
                more = self._more()
                while more and len(self._text) - self._place < 2 * before:
                    more = self._more()
                if len(self._text) - self._place == before:
                    raise self.broken(error.msg) from error
            except (ValueError, RecursionError) as error:
                raise self.broken(str(error)[:80]) from error

    def _more(self) -> bool:
        """Read a block; False at the end."""
        block = next(self._blocks, b"")
        self._line += self._text.count("\n", 0, self._place)
        try:
            self._text = self._text[self._place :] + self._decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise self.broken("not UTF-8") from error
        self._place = 0
        return bool(block)


def _table(path: Path) -> Iterator[Record]:
    """Rows of a CSV or TSV: texts may hold newlines, an empty cell is none, a cell may be a JSON list of texts."""
    lines, tabs = _table_lines(path), path.name.removesuffix(".gz").endswith(".tsv")
    first = next(lines, "")
    # Programs of half of the world write semicolons; a header tells.
    delimiter = "\t" if tabs else max(",;\t", key=first.count)
    # Strict: a quote that is never closed would swallow the rows behind it.
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    start = 1
    try:
        names = [name.strip() for name in next(reader, [])]
        if not names or len(set(names)) < len(names):
            what = "no names of columns in the first line" if not names else "two columns have one name"
            raise InputError(what, where=f"{path}:1", todo="write a first line such as: query,pos,neg")
        start = reader.line_num + 1
        for cells in reader:
            where, start = f"{path}:{start}", reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(names):
                detail = f"{len(cells)} cells, {len(names)} columns"
                yield (
                    where,
                    RowProblem(
                        "cells do not match the columns", "quote texts that hold the delimiter", detail
                    ),
                )
            else:
                yield where, _cells(dict(zip(names, cells, strict=True)))
    except csv.Error as error:
        raise InputError(
            f"not a table ({error})",
            where=f"{path}:{start}",
            todo="write texts with quotes or newlines in quotes, and their quotes doubled, as csv libraries do",
        ) from error


def _cells(record: dict[str, str]) -> object:
    values: dict[str, object] = {}
    for name, cell in record.items():
        if not cell.isascii() and any("\ud800" <= character <= "\udfff" for character in cell):
            return RowProblem("not UTF-8", "save the file as UTF-8", f"column {name!r}")
        value: object = cell or None
        if cell.startswith("[") and cell.endswith("]"):
            if cell.startswith('["'):
                found = parse_json(cell.encode())
                value = found if isinstance(found, list) else cell
            elif name in _LISTS and cell.startswith("['"):
                detail = f"column {name!r}"
                return RowProblem("a list as Python prints it", 'write it as JSON: ["text", "text"]', detail)
            elif name in _SCORE_LISTS:
                value = parse_json(cell.encode())
        values[name] = value
    return values


#: Columns of lists; a Python list in one of them would be taken for a text.
_LISTS = ("pos", "positives", "neg", "negatives")
_SCORE_LISTS = ("pos_scores", "neg_scores")


def _table_lines(path: Path) -> Iterator[str]:
    """Lines for the csv reader; bytes that are no UTF-8 become lone surrogates, which its cells are searched for."""
    return (line.decode(errors="surrogateescape") for _, line in read_lines(path))


def _arrow(path: Path) -> Iterator[Record]:
    """Rows of a shard of ``save_to_disk``: an Arrow stream."""
    import pyarrow as pa

    number = 0
    try:
        with pa.memory_map(str(regular_file(path))) as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                # Arrow trusts what a stream says of its own buffers: one changed byte leads out of them.
                batch.validate(full=True)
                for start in range(0, batch.num_rows, 1024):
                    for record in _batch_records(batch.slice(start, 1024)):
                        number += 1
                        yield f"{path}: row {number}", record
    except (pa.ArrowException, OSError, *_ODD) as error:
        message = f"cannot read the Arrow file ({(str(error).splitlines() or [''])[0][:120]})"
        raise InputError(message, where=str(path), todo="save the data set again") from error


def parse_json(line: bytes) -> object:
    """Return what a line of JSON stands for, or the :class:`RowProblem` that it is."""
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        return RowProblem("not UTF-8", "save the file as UTF-8", f"byte {error.start + 1} of the line")
    except json.JSONDecodeError as error:
        detail = f"{error.msg} at column {error.colno}"
        todo = "put one JSON object on each line, or all of them into one array in a .json file"
        return RowProblem("not JSON", todo, detail)
    except (ValueError, RecursionError) as error:
        # Integers of thousands of digits and lists nested thousands deep: valid JSON, never a row.
        return RowProblem("JSON that cannot be read", "put one JSON object on each line", str(error)[:80])


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        with pq.ParquetFile(regular_file(path)) as file:
            for batch in file.iter_batches(batch_size=1024):
                if batch.nbytes > _LARGEST_BATCH:  # one text of a dictionary may stand in every row
                    what = f"its rows have {batch.nbytes / batch.num_rows / 2**20:.0f} MiB each"
                    raise InputError(what, where=f"{path}: row {number + 1}", todo="cut the texts")
                for record in _batch_records(batch):
                    number += 1
                    yield f"{path}: row {number}", record
    except (pa.ArrowException, OSError, *_ODD) as error:
        message = f"cannot read the parquet file ({(str(error).splitlines() or [''])[0][:120]})"
        raise InputError(message, where=str(path), todo="write or download the file again") from error


def _batch_records(batch: pa.RecordBatch) -> Iterator[object]:
    try:
        yield from batch.to_pylist()
    except _ODD:
        # Parquet does not check its strings and times; find the row by reading them one at a time.
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield RowProblem("not UTF-8", "write the strings as UTF-8")
            except _ODD as error:
                yield RowProblem("a value that cannot be read", "write texts and numbers", str(error)[:80])
