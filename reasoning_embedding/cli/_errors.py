"""How a verb that fails ends: a message for what a user can act on, a traceback for everything else."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import typer

from reasoning_embedding.errors import ReasoningEmbeddingError

INTERRUPTED = 130


@contextlib.contextmanager
def handled() -> Generator[None]:
    """Print the project's own errors and end with their exit code; let all others through.

    Raises
    ------
    SystemExit
        With the error's exit code (2 input, 3 machine, 1 otherwise), or 130 after Ctrl-C.
    """
    try:
        yield
    except ReasoningEmbeddingError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from error
    except KeyboardInterrupt as error:
        typer.echo("interrupted", err=True)
        raise SystemExit(INTERRUPTED) from error
