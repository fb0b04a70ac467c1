"""One process a folder: advisory locks that end with the process that holds them, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Generator
from pathlib import Path

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import explain_disk_errors


@contextlib.contextmanager
def hold(
    file: Path, *, refusal: str, todo: str, shared: bool = False, patience: float = 0.0
) -> Generator[None]:
    """Hold a lock file while the block runs; a second process is refused.

    Parameters
    ----------
    file : Path
        The lock; it is made with its folder, and stays.
    refusal, todo : str
        What a second process is told.
    shared : bool
        Whether others that share may hold it too; only one that does not share excludes all.
    patience : float
        Seconds to wait for whoever holds it.

    Raises
    ------
    InputError
        If another process holds it.
    SetupError
        If the folder cannot be written.
    """
    with _open(file) as descriptor:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise InputError(refusal, where=str(file.parent), todo=todo) from error
            time.sleep(0.2)
        yield


@contextlib.contextmanager
def take_turns(file: Path) -> Generator[None]:
    """Hold a lock file while the block runs; other processes wait for their turn.

    Raises
    ------
    SetupError
        If the folder cannot be written.
    """
    with _open(file) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _open(file: Path) -> Generator[int]:
    with explain_disk_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_held(file: Path) -> bool:
    """Whether a process holds a lock file now."""
    try:
        with file.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, IsADirectoryError):  # whoever wants to hold it is told what stands there
        return False
    except BlockingIOError:
        return True
    return False
