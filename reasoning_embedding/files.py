"""Files and folders that appear whole or not at all, and JSON that is read with its place named."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

from reasoning_embedding.errors import InputError, SetupError
from reasoning_embedding.secrets import masked, written

#: Suffix of what is being written; anything that carries it is rubbish of a stopped process.
PARTIAL = ".partial"


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


def atomic_write(path: Path, content: str, *, exact: bool = False) -> None:
    """Write a text file through a temporary sibling and a rename.

    Parameters
    ----------
    path : Path
        The file.
    content : str
        Its text; what is certainly a secret in it is masked.
    exact : bool
        For what a model reads: every character as it is.

    Raises
    ------
    SetupError
        When the disk is full or the folder cannot be written.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(content if exact else written(content), encoding="utf-8")


def write_json(path: Path, value: Any, *, exact: bool = False) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinities are refused, secrets masked unless `exact`."""
    content = json.dumps(value if exact else masked(value), indent=1, ensure_ascii=False, allow_nan=False)
    atomic_write(path, content + "\n", exact=True)


def read_json(
    path: Path, *, default: dict[str, Any] | None = None, todo: str = "delete the file and make it again"
) -> dict[str, Any]:
    """Read the object of a JSON file.

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
        If the file is not JSON or not an object; names file and line.
    FileNotFoundError
        If there is no file and no `default`.
    """
    value = read_json_value(path, default=default, todo=todo)
    if not isinstance(value, dict):
        raise InputError("a JSON object was expected", where=str(path), todo=todo)
    return value


def read_json_value(
    path: Path, *, default: Any = None, todo: str = "delete the file and make it again"
) -> Any:
    """Read a JSON file that may hold a list or any other value; see :func:`read_json`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if default is None:
            raise
        return default
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg}", where=f"{path}:{error.lineno}", todo=todo) from error
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text", where=f"{path}: byte {error.start}", todo=todo) from error


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read the objects of a JSON Lines file that a process may have been killed while writing.

    A line that is no whole object is left out: whoever appended it was stopped, and writes it again.
    A file that is not there holds nothing.
    """
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records
