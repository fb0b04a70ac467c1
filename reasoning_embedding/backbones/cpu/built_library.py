"""A compiled library in the user's cache: private, whole, tried before it is loaded, built anew when it is damaged.

What is loaded runs with the user's rights, so it is loaded only from a folder and a file that nobody else can write,
and only if its content has the SHA-256 that its name carries. What it may do to a process, a crash, is found out in
another process: every library in the cache has passed its trial.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import signal
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from reasoning_embedding.files import atomic_write, move_into_place

_log = logging.getLogger(__name__)
#: What a library that does not fit this machine ends its trial with; it would do so again.
_CRASHES = {-signal.SIGILL, -signal.SIGBUS, -signal.SIGSEGV, -signal.SIGFPE, -signal.SIGTRAP, -signal.SIGABRT}
#: Exit code of a trial whose numbers are wrong.
WRONG = 1


def load_library(name: str, build: Callable[[Path], object], trial: Callable[[Path], int]) -> ctypes.CDLL:
    """Load a library, built before or now.

    Parameters
    ----------
    name : str
        Names it, and all that its code depends on: source, flags, compiler, processor.
    build : callable
        Writes it to a path.
    trial : callable
        Uses the library of a path in a process of its own and returns that process's exit code.

    Raises
    ------
    OSError
        If it cannot be built or fails its trial; a crash or wrong numbers are remembered, so that it is not tried at
        every start.
    subprocess.SubprocessError
        If the compiler fails.

    Notes
    -----
    Ranks may build at once: each builds apart, and the last one's rename stands.
    """
    folder = _cache_folder()
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="reasoning-embedding-") as private:
            return _load(_build(Path(private), name, build, trial))  # stays mapped without its file
    failed = folder / f"{name}.failed"
    if failed.is_file():
        raise OSError(f"{failed.read_text(errors='replace').strip()}; delete {failed} to try again")
    for path in sorted(folder.glob(f"{name}-*.so")):
        try:
            return _load(path)
        except OSError as error:
            _log.warning("%s: %s; it is built anew", path, error)
            path.unlink(missing_ok=True)
    return _load(_build(folder, name, build, trial))


def _cache_folder() -> Path | None:
    """Return the folder for built libraries, or None where there is none that is this user's alone."""
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(root) / "reasoning_embedding"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owners, mode = {folder.lstat().st_uid, folder.stat().st_uid}, folder.stat().st_mode
        if refusal := _not_private(owners, mode):
            raise PermissionError(f"{refusal}; delete it, or `chmod 700` it after looking what lies in it")
        if mode & 0o077:
            folder.chmod(0o700)
        return folder if os.access(folder, os.W_OK) else None
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        where = "" if isinstance(error, RuntimeError) else f"{folder}: "
        _log.warning("%s%s; kernels are built for this process alone", where, error)
        return None


def _not_private(owners: set[int], mode: int) -> str | None:
    """Say why others could have written what lies there; None where only this user could."""
    if owners != {os.geteuid()}:
        return "it belongs to another user"
    return "others may write to it" if mode & 0o022 else None


def _build(folder: Path, name: str, build: Callable[[Path], object], trial: Callable[[Path], int]) -> Path:
    with tempfile.TemporaryDirectory(dir=folder) as apart:
        made = Path(apart) / f"{name}.so"
        build(made)
        made.chmod(0o600)
        code = trial(made)
        if code:
            cause = "computes wrong numbers" if code == WRONG else f"ends with exit code {code}"
            if code == WRONG or code in _CRASHES:
                cause = f"ends with {signal.Signals(-code).name}" if code < 0 else cause
                atomic_write(folder / f"{name}.failed", f"the library built here {cause} on this machine\n")
            raise OSError(f"the library built here {cause} when tried")
        path = folder / f"{name}-{hashlib.sha256(made.read_bytes()).hexdigest()}.so"
        move_into_place(made, path)
    return path


def _load(path: Path) -> ctypes.CDLL:
    """Load a file that is this user's alone and whole.

    Raises
    ------
    OSError
        If it is not, or is no library.
    """
    # What is checked is what is loaded: both through one descriptor, which stays open because the loader takes
    # a second library under the name of an open one for the first.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise OSError("it is no file")
        if refusal := _not_private({state.st_uid}, state.st_mode):
            raise PermissionError(refusal)
        with open(descriptor, "rb", closefd=False) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != path.stem.rpartition("-")[2]:
            raise OSError("it is damaged: its content has not the SHA-256 of its name")
        opened = Path(f"/proc/self/fd/{descriptor}")
        return ctypes.CDLL(str(opened if opened.exists() else path))
    except OSError:
        os.close(descriptor)
        raise
