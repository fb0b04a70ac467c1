"""The terminal of a verb: lines while something long runs, columns, and libraries kept silent."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import typer


def speaker() -> Callable[[str], None]:
    """Return a function that prints a line after the seconds since the start."""
    started = time.perf_counter()

    def say(line: str) -> None:
        typer.echo(f"{time.perf_counter() - started:6.0f} s  {line}")

    return say


#: Whether the line after a verb's end is left out (`rembed --quiet`).
_quiet = False


def be_quiet() -> None:
    """Print no next command in this process."""
    global _quiet
    _quiet = True


def next_command(text: str) -> None:
    """Say what a user is likely to type next: one line beside the output, on a terminal only."""
    if not _quiet and sys.stderr.isatty():
        typer.echo(f"next: {text}", err=True)


def columns(rows: Sequence[Sequence[str]], left: Collection[int]) -> str:
    """Lay rows out as columns: those of `left` start at their left edge, the others end at their right.

    Not a rich table: that one cuts names where the terminal is narrow or the output is a pipe.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def difference_lines(found: Sequence[tuple[str, Any, Any]]) -> list[str]:
    """Write what differs as lines ``key: old -> new``, values as JSON."""
    from reasoning_embedding.config.resolved import ABSENT

    def show(value: Any) -> str:
        return value if value is ABSENT else json.dumps(value, ensure_ascii=False)

    return [f"{key}: {show(old)} -> {show(new)}" for key, old, new in found]


def silence_libraries() -> None:
    """Keep the progress bars and advice of libraries out of a verb's own output."""
    import logging
    import os

    from reasoning_embedding.isolation import serial_tokenizers

    # Imported by transformers where it is installed, it writes warnings about the machine to stdout.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    serial_tokenizers()
    os.environ.setdefault("TQDM_DISABLE", "1")
