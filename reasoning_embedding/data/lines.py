"""Lines of a file, plain or gzip, with limits on what a hostile or broken one can cost."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reasoning_embedding.errors import InputError

#: Bytes of a line. The longest documents of retrieval have a few MiB; a line of a bomb has gigabytes.
LONGEST = 64 * 2**20
#: Times that a compressed file may grow, once it has given a GiB: text grows five- to tenfold, equal rows some
#: hundredfold, and no gzip more than 1,032-fold.
GROWTH = 400
_UNQUESTIONED = 2**30


def regular_file(path: Path) -> Path:
    """Return a path if it is a regular file: reading a pipe or a device may never end.

    Raises
    ------
    InputError
        If it is something else, or not there.
    """
    try:
        if path.is_file():
            return path
        what = "this is a folder" if path.is_dir() else "no such file"
        what = "not a regular file (a pipe or a device)" if path.exists() and not path.is_dir() else what
    except (OSError, ValueError) as error:
        what = f"not a path of this system ({getattr(error, 'strerror', None) or error})"
    raise InputError(what, where=str(path)[:300], todo="name a file")


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the bytes of every line, with its end; ``.gz`` is unpacked.

    Parameters
    ----------
    path : Path
        The file. A byte order mark before its first line is left out.

    Raises
    ------
    InputError
        If the file cannot be read or unpacked, a line has more than 64 MiB, or a compressed file grows more than
        400-fold beyond a GiB; says at which line.
    """
    number = total = 0
    try:
        packed = path.name.endswith(".gz")
        most = max(_UNQUESTIONED, GROWTH * regular_file(path).stat().st_size) if packed else None
        with _opened(path, packed) as file:
            while line := file.readline(LONGEST + 1):
                number += 1
                total += len(line)
                if len(line) > LONGEST:
                    raise InputError(
                        f"a line of more than {LONGEST // 2**20} MiB",
                        where=f"{path}:{number}",
                        todo="put one record on each line",
                    )
                if most is not None and total > most:
                    raise InputError(
                        f"unpacked it is more than {GROWTH} times as large as it is packed; no text is",
                        where=f"{path}:{number}",
                        todo="look at what the file holds; unpack it yourself if it is what you want",
                    )
                yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        todo = "download or compress the file again"
        raise InputError(f"broken gzip ({error})", where=f"{path}:{number + 1}", todo=todo) from error
    except OSError as error:
        raise InputError(f"cannot read the file ({error.strerror or error})", where=str(path)) from error


def read_blocks(path: Path, size: int = 1 << 20) -> Iterator[bytes]:
    """Yield the bytes of a file in blocks of at most `size`, without a byte order mark; ``.gz`` is unpacked.

    Raises
    ------
    InputError
        As :func:`read_lines`, which see; lines play no part.
    """
    total, packed = 0, path.name.endswith(".gz")
    try:
        most = max(_UNQUESTIONED, GROWTH * regular_file(path).stat().st_size)
        with _opened(path, packed) as file:
            while block := file.read(size):
                if packed and total + len(block) > most:
                    raise InputError(
                        f"unpacked it is more than {GROWTH} times as large as it is packed; no text is",
                        where=str(path),
                        todo="look at what the file holds; unpack it yourself if it is what you want",
                    )
                yield block if total else block.removeprefix(b"\xef\xbb\xbf")
                total += len(block)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        todo = "download or compress the file again"
        raise InputError(f"broken gzip ({error})", where=str(path), todo=todo) from error
    except OSError as error:
        raise InputError(f"cannot read the file ({error.strerror or error})", where=str(path)) from error


def read_text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of every line, with its end; see :func:`read_lines`.

    Raises
    ------
    InputError
        As there, and if a line is not UTF-8.
    """
    for number, line in read_lines(path):
        try:
            yield number, line.decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"not UTF-8 (byte {error.start + 1} of the line)",
                where=f"{path}:{number}",
                todo="save the file as UTF-8",
            ) from error


def _opened(path: Path, packed: bool) -> Any:
    # GzipFile is a raw stream, whose own readline costs a call of Python's a line.
    if not packed:
        return path.open("rb")
    raw: Any = gzip.open(path)  # noqa: SIM115 - the reader around it closes it
    return io.BufferedReader(raw, 1 << 16)
