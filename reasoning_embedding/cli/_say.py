"""Words on the terminal while something long runs."""

from __future__ import annotations

import time
from collections.abc import Callable

import typer


def speaker() -> Callable[[str], None]:
    """Return a function that prints a line after the seconds since the start."""
    started = time.perf_counter()

    def say(line: str) -> None:
        typer.echo(f"{time.perf_counter() - started:6.0f} s  {line}")

    return say


def quiet_libraries() -> None:
    """Keep the progress bars and advice of libraries out of a verb's own output."""
    import logging
    import os

    # Imported by transformers where it is installed, it writes warnings about the machine to stdout.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
