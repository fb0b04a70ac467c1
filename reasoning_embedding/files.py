"""Files and folders that appear whole or not at all, and JSON that is read with its place named."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from reasoning_embedding.errors import InputError, SetupError

#: Suffix of what is being written; anything that carries it is rubbish of a stopped process.
PARTIAL = ".partial"
#: Key of a sealed JSON file that holds the SHA-256 of its other content.
_SEAL = "seal"
#: Key of a line of JSON that holds the CRC-32 of its other content.
_LINE_SEAL = "crc32"
_CHUNK = 1 << 24


@contextlib.contextmanager
def explain_disk_errors(path: Path) -> Generator[None]:
    """Turn a full disk or a folder without permission into an error that says so.

    Raises
    ------
    SetupError
        On ENOSPC, EDQUOT, EACCES, EPERM, EROFS and on a file where a folder should be.
    """
    try:
        yield
    except OSError as error:
        causes = {
            errno.ENOSPC: (
                "the disk is full",
                "free some space and resume the run; what was saved before is whole",
            ),
            errno.EDQUOT: ("the disk quota is used up", "free some space and resume the run"),
            errno.EACCES: ("permission denied", "choose an output_dir you may write to"),
            errno.EPERM: ("permission denied", "choose an output_dir you may write to"),
            errno.EROFS: ("the file system is read-only", "choose an output_dir you may write to"),
            errno.ENOTDIR: ("a file stands where a folder should be", "choose another output_dir"),
            errno.EEXIST: ("a file stands where a folder should be", "choose another output_dir"),
            errno.EISDIR: ("a folder stands where a file should be", "move that folder away"),
        }
        if error.errno not in causes:
            raise
        what, todo = causes[error.errno]
        raise SetupError(f"cannot write: {what}", where=str(path), todo=todo) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_folder(final: Path) -> Generator[Path]:
    """Yield a temporary sibling of `final` and rename it to `final` when the block succeeds.

    A process killed at any moment leaves either no `final` or a whole one. An existing `final` is
    replaced. On an error the temporary folder is removed and `final` stays as it was.

    Raises
    ------
    SetupError
        When the disk is full or the folder cannot be written.
    """
    with explain_disk_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.parent / f".{final.name}{PARTIAL}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
            _sync(temporary)
            if final.exists():
                old = final.parent / f".{final.name}.old{PARTIAL}"
                shutil.rmtree(old, ignore_errors=True)
                final.rename(old)
                temporary.rename(final)
                shutil.rmtree(old, ignore_errors=True)
            else:
                temporary.rename(final)
            _sync(final.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def remove_folder(path: Path) -> None:
    """Delete a folder that is there; a process killed meanwhile leaves rubbish, nothing that looks whole."""
    old = path.with_name(f".{path.name}.old{PARTIAL}")
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def atomic_file(path: Path) -> Generator[Path]:
    """Yield a temporary sibling of `path` to write to, and rename it to `path` when the block succeeds.

    On an error the temporary file is removed and `path` stays as it was.

    Raises
    ------
    SetupError
        When the disk is full or the folder cannot be written.
    """
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}{PARTIAL}")
        try:
            yield temporary
            _sync(temporary)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def atomic_write(path: Path, content: str) -> None:
    """Write a text file through a temporary sibling and a rename.

    Raises
    ------
    SetupError
        When the disk is full or the folder cannot be written.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def write_json(path: Path, value: Any, *, sealed: bool = False) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinities are refused.

    Parameters
    ----------
    path : Path
        The file.
    value : Any
        An object, if it is sealed.
    sealed : bool
        Add the SHA-256 of the content, which :func:`read_json` holds the file to and takes out again.
    """
    if sealed:
        value = {**value, _SEAL: _seal(value)}
    atomic_write(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _seal(value: dict[str, Any]) -> str:
    """SHA-256 of an object as JSON gives it back: keys are text, tuples are lists, order plays no part."""
    again = json.loads(json.dumps(value, allow_nan=False))
    return hashlib.sha256(json.dumps(again, sort_keys=True).encode()).hexdigest()


def read_json(
    path: Path, *, default: dict[str, Any] | None = None, todo: str = "delete the file and make it again"
) -> dict[str, Any]:
    """Read the object of a JSON file, and hold it to its seal where it has one.

    Parameters
    ----------
    path : Path
        The file.
    default : dict, optional
        What stands for a file that is not there.
    todo : str
        What to do about a damaged one.

    Raises
    ------
    InputError
        If the file cannot be read, is not JSON, not an object or not what was sealed; names file and line.
    FileNotFoundError
        If there is no file and no `default`.
    """
    value = read_json_value(path, default=default, todo=todo)
    if not isinstance(value, dict):
        raise InputError("a JSON object was expected", where=str(path), todo=todo)
    if _SEAL in value and value.pop(_SEAL) != _seal(value):
        raise InputError("the file was changed after it was written", where=str(path), todo=todo)
    return value


def read_json_value(
    path: Path, *, default: Any = None, todo: str = "delete the file and make it again"
) -> Any:
    """Read a JSON file that may hold a list or any other value; see :func:`read_json`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if default is None:
            raise
        return default
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path), todo=todo) from error
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg}", where=f"{path}:{error.lineno}", todo=todo) from error
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text", where=f"{path}: byte {error.start}", todo=todo) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise InputError(f"not JSON: {error}", where=str(path), todo=todo) from error


def json_line(record: dict[str, Any]) -> str:
    """Return one line of a JSON Lines file, with the CRC-32 that :func:`read_json_lines` holds it to.

    NaN and infinities are refused.
    """
    content = json.dumps(record, allow_nan=False)
    return json.dumps({**record, _LINE_SEAL: f"{zlib.crc32(content.encode()):08x}"}) + "\n"


def read_json_lines(path: Path, *, damaged: Callable[[str], None] | None = None) -> list[dict[str, Any]]:
    """Read the objects of a JSON Lines file that a process may have been killed while writing.

    A last line that is no whole object is left out: whoever appended it was stopped, and writes it again.
    A file that is not there holds nothing.

    Parameters
    ----------
    path : Path
        The file.
    damaged : callable, optional
        Takes the place and the damage of any other line that is not what was written; the line is left out.

    Raises
    ------
    InputError
        Without `damaged`, for the first damaged line; for a file that cannot be read.
    """
    return [record for _, record in read_json_lines_as_written(path, damaged=damaged)]


def read_json_lines_as_written(
    path: Path, *, damaged: Callable[[str], None] | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """Read lines and their objects; see :func:`read_json_lines`."""
    records: list[tuple[str, dict[str, Any]]] = []
    try:
        lines = path.read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return records
    except OSError as error:
        todo = "move away what stands there"
        raise InputError(f"cannot be read ({error.strerror})", where=str(path), todo=todo) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record, what = _read_line(line)
        if record is not None:
            records.append((f"{line.decode()}\n", record))
        elif damaged is not None and number < len(lines):
            damaged(f"{path}:{number}: {what}")
        elif number < len(lines):
            raise InputError(what, where=f"{path}:{number}", todo=_TODO_LINE)
    return records


_TODO_LINE = "resume the run with --resume, which leaves damaged lines out and says so; or delete the line"


def _read_line(line: bytes) -> tuple[dict[str, Any] | None, str]:
    """Return the object of a line, or what is wrong with it; lines of older versions have no sum."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return None, f"not JSON: {error.msg if isinstance(error, json.JSONDecodeError) else error}"
    if not isinstance(record, dict):
        return None, "no JSON object"
    wanted = record.pop(_LINE_SEAL, None)
    if wanted is not None and wanted != f"{zlib.crc32(json.dumps(record).encode()):08x}":
        return None, "the line was changed after it was written"
    return record, ""


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def crc32(path: Path) -> str:
    """CRC-32 of a file's bytes, hexadecimal: twice as fast as SHA-256, against damage alone."""
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total = zlib.crc32(chunk, total)
    return f"{total:08x}"
