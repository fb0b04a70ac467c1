"""What the data verbs read and write: rows of a file, a folder or a configuration; rows as JSON Lines."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import shutil
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from reasoning_embedding import config
from reasoning_embedding.data import Table, load_table
from reasoning_embedding.data.cache import on_disk
from reasoning_embedding.data.rows import BadRows, Row, row_record
from reasoning_embedding.data.sources import read_corpus
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import (
    atomic_file,
    atomic_write,
    crc32,
    read_json,
    require_output_file,
    write_json,
)
from reasoning_embedding.progress import Report
from reasoning_embedding.secrets import masked, sealed, unsealed

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


class RowOutput:
    """A file of rows that a job writes, what the job has done so far, and the report beside the file.

    Parameters
    ----------
    path : Path
        ``.jsonl`` or ``.jsonl.gz``.

    Attributes
    ----------
    progress : Path
        Folder of what the job would lose to a kill, ``<path>.progress``; :meth:`finish` removes it.
    report : Path
        ``<path>.report.json``.

    Raises
    ------
    InputError
        If the file exists and no report or progress beside it tells what made it, or it is not to be JSON Lines.
    """

    def __init__(self, path: Path) -> None:
        if not path.name.endswith(_OUTPUT):
            raise InputError(
                "rows are written as JSON Lines", where=str(path), todo="end it in .jsonl or .jsonl.gz"
            )
        require_output_file(path)
        self.path = path
        self.progress = path.with_name(path.name + ".progress")
        self.report = path.with_name(path.name + ".report.json")
        self._claims = self.progress / "settings.json"
        if path.exists() and not (self.report.exists() or self._claims.exists()):
            raise self._exists()

    def _exists(self) -> InputError:
        return InputError(
            "this file exists and is not overwritten", where=str(self.path), todo="name another, or remove it"
        )

    def made_before(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        """Return the report of a file that an earlier job wrote with these settings; None where work is left to do.

        A job that was killed between the file and its report has work left: it writes both again.

        Raises
        ------
        InputError
            If the file is there and was made with other settings.
        """
        if not self.path.exists():
            return None
        settings = json.loads(json.dumps(settings))
        if (found := read_json(self.report, default={})).get("settings") == masked(settings):
            shutil.rmtree(self.progress, ignore_errors=True)
            return found
        claimed = unsealed(read_json(self._claims, default={}), settings, self.progress)
        if found or claimed != settings:
            raise self._exists()
        return None

    def claim(self, settings: dict[str, Any], free: tuple[str, ...] = ()) -> None:
        """Check that what an earlier process left in the progress folder was made with these settings.

        Parameters
        ----------
        settings : dict
            What decides the folder's content, as JSON.
        free : tuple of str
            Settings that may differ from those of an earlier process that was stopped.

        Raises
        ------
        InputError
            If it was made with other settings.
        """
        settings = json.loads(json.dumps(settings))
        found = unsealed(read_json(self._claims, default=settings), settings, self.progress)
        changed = [name for name, value in settings.items() if name not in free and found.get(name) != value]
        if changed:
            raise InputError(
                f"an earlier job left this with another {', '.join(changed)}",
                where=str(self.progress),
                todo="give its command again, remove the folder, or name another output",
            )
        self.report.unlink(missing_ok=True)  # of a file that was removed since
        write_json(self._claims, sealed(settings, self.progress), summed=True)

    @contextlib.contextmanager
    def open(self) -> Generator[BinaryIO | gzip.GzipFile]:
        """Yield the file for bytes, compressed where its name says so; it appears when all are written, or never.

        Raises
        ------
        SetupError
            When the disk is full or the folder cannot be written.
        """
        with atomic_file(self.path) as temporary, temporary.open("wb") as plain:
            if self.path.suffix != ".gz":
                yield plain
                return
            # No time and no name within: equal rows give equal bytes.
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=plain, mtime=0) as packed:
                yield packed

    def finish(self, report: dict[str, Any]) -> None:
        """Write the report and remove the progress folder."""
        write_json(self.report, report, summed=True)
        if self.progress.exists():
            shutil.rmtree(self.progress)


@contextlib.contextmanager
def part_file(path: Path) -> Generator[Path]:
    """Yield a temporary file for a part of a long job; it gets its name when it is whole, and its sum lies beside it.

    Raises
    ------
    SetupError
        When the disk is full or the folder cannot be written.
    """
    with atomic_file(path) as temporary:
        yield temporary
        atomic_write(_sum_of(path), crc32(temporary))  # first: a part that is there has one


def is_whole_part(path: Path, report: Report) -> bool:
    """Whether an earlier process wrote this part, and it is as it was written; damage is said."""
    if not path.exists():
        return False
    sums = _sum_of(path)
    if sums.is_file() and sums.read_bytes() == crc32(path).encode():
        return True
    report(f"{path} was changed after it was written, or is of an older version: it is made again")
    return False


def _sum_of(path: Path) -> Path:
    return path.with_suffix(".crc32")


def row_lines(rows: Iterable[Row]) -> Iterator[bytes]:
    """Yield rows as lines of JSON."""
    for row in rows:
        yield json.dumps(row_record(row), ensure_ascii=False).encode() + b"\n"
