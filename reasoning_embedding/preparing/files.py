"""What the data verbs read and write: rows of a file, a folder or a configuration; rows as JSON Lines."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from reasoning_embedding import config
from reasoning_embedding.data import Table, load_table
from reasoning_embedding.data.cache import on_disk
from reasoning_embedding.data.rows import BadRows, Row, row_record
from reasoning_embedding.data.sources import read_corpus
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_file, read_json, write_json

_YAML = (".yaml", ".yml")
_OUTPUT = (".jsonl", ".jsonl.gz")


def data_section(path: Path) -> config.Data:
    """Return the data of a run's or experiment's configuration, or of a file or folder of rows.

    Raises
    ------
    InputError
        If there is no such path, or the configuration is not valid.
    """
    if path.suffix in _YAML:
        loaded = config.load_config(path, expect=(config.RunConfig, config.ExperimentConfig)).config
        return (loaded.recipe if isinstance(loaded, config.ExperimentConfig) else loaded).data
    if not path.exists():
        raise InputError(
            "no such file or folder", where=str(path), todo="name rows, or a configuration with data"
        )
    return config.Data(sources=[config.FilesSource(kind="files", path=str(path))])


def plain_table(data: config.Data, folder: Path) -> Table:
    """Return the table whose queries carry their instruction alone as prompt, so that rows can be written.

    Large data without a ``cache_dir`` lies in `folder` and is read from there.
    """
    return load_table(on_disk(data.model_copy(update={"query_template": "{instruction}"}), folder))


def corpus_texts(path: Path) -> list[str]:
    """Return the texts of a corpus of ``{"_id": id, "text": text}`` in their order.

    Raises
    ------
    InputError
        If it cannot be read or is empty.
    """
    texts = list(read_corpus(path, BadRows()).values())
    if not texts:
        raise InputError(
            "no texts", where=str(path), todo='write {"_id": id, "text": text}, one object a line'
        )
    return texts


def texts_digest(texts: Iterable[str]) -> str:
    """Return the SHA-256 of texts in their order, hexadecimal."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")  # no text holds NUL
    return digest.hexdigest()


def check_output(path: Path) -> None:
    """Refuse a name that is taken or of another kind.

    Raises
    ------
    InputError
        If the file exists, or is not to be JSON Lines.
    """
    if not path.name.endswith(_OUTPUT):
        raise InputError(
            "rows are written as JSON Lines", where=str(path), todo="end it in .jsonl or .jsonl.gz"
        )
    if path.exists():
        raise InputError(
            "this file exists and is not overwritten", where=str(path), todo="name another, or remove it"
        )


@contextlib.contextmanager
def row_file(path: Path) -> Generator[BinaryIO | gzip.GzipFile]:
    """Yield a file of bytes, compressed where its name says so, that appears whole or not at all.

    Raises
    ------
    SetupError
        When the disk is full or the folder cannot be written.
    """
    with atomic_file(path) as temporary, temporary.open("wb") as plain:
        if path.suffix != ".gz":
            yield plain
            return
        # No time and no name within: equal rows give equal bytes.
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=plain, mtime=0) as packed:
            yield packed


def row_lines(rows: Iterable[Row]) -> Iterator[bytes]:
    """Yield rows as lines of JSON."""
    for row in rows:
        yield json.dumps(row_record(row), ensure_ascii=False).encode() + b"\n"


def claim_progress(output: Path, settings: dict[str, Any], free: tuple[str, ...] = ()) -> Path:
    """Return the folder where a job that writes `output` keeps what it would lose to a kill.

    Parameters
    ----------
    output : Path
        The folder is :func:`progress_folder`; the job removes it when it is done.
    settings : dict
        What decides the folder's content, as JSON.
    free : tuple of str
        Settings that may differ from those of an earlier process that was stopped.

    Raises
    ------
    InputError
        If an earlier process left something made with other settings.
    """
    folder = progress_folder(output)
    file = folder / "settings.json"
    settings = json.loads(json.dumps(settings))
    found = read_json(file, default=settings)
    if changed := [name for name, value in settings.items() if name not in free and found.get(name) != value]:
        raise InputError(
            f"an earlier job left this with another {', '.join(changed)}",
            where=str(folder),
            todo="give its command again, remove the folder, or name another output",
        )
    write_json(file, settings)
    return folder


def progress_folder(output: Path) -> Path:
    """Return the folder of what a job that writes `output` has done so far."""
    return output.with_name(output.name + ".progress")


def report_file(output: Path) -> Path:
    """Return where the report of a job that writes `output` goes."""
    return output.with_name(output.name + ".report.json")
