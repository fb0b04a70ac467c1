"""How a function becomes a verb, and how a verb ends: a message for what a user can act on, else a traceback."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Generator
from typing import Annotated, Literal

import typer

from reasoning_embedding.errors import ReasoningEmbeddingError
from reasoning_embedding.files import full_disk
from reasoning_embedding.secrets import written

#: Overrides of a configuration, as every verb that reads one takes them.
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Overrides, such as training.steps=100.", metavar="[KEY=VALUE]...")
]
#: What a verb computes on.
DeviceName = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option("--device", help="auto: a CUDA GPU where one answers, else the CPU."),
]
#: Exit code after Ctrl-C.
INTERRUPTED = 130
_SETTINGS = {"help_option_names": ["-h", "--help"]}


def make_app(text: str | None = None, *, completion: bool = False) -> typer.Typer:
    """Return a typer application with the settings all verbs share.

    No pretty exceptions: an unexpected error shows Python's own traceback. No rich help: importing it
    would take a third of the time of ``--help``.

    Parameters
    ----------
    text : str, optional
        Help of a group of verbs; a group without a verb prints its help.
    completion : bool
        Offer ``--install-completion`` for the shell; of the program, not of its verbs.
    """
    return typer.Typer(
        help=text,
        short_help=text,
        add_completion=completion,
        no_args_is_help=text is not None,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings=_SETTINGS,
    )


def add(app: typer.Typer, function: Callable[..., None], name: str) -> None:
    """Register `function` as verb `name`; its help is its docstring up to the numpy sections."""
    lines = (inspect.getdoc(function) or "").splitlines()
    end = next((i for i, line in enumerate(lines) if line and set(line) == {"-"}), len(lines) + 1) - 1
    text = "\n".join(lines[:end]).strip()
    # Whole, because click cuts a help it shortens itself in the middle of a sentence.
    first = " ".join(text.split("\n\n")[0].split())
    app.command(name, help=text, short_help=first, context_settings=_SETTINGS)(function)


@contextlib.contextmanager
def handled() -> Generator[None]:
    """Print the project's own errors, and any library's of a full disk, and end with their exit code.

    All others pass through.

    Raises
    ------
    SystemExit
        With the error's exit code (2 input, 3 machine, 1 otherwise), or 130 after Ctrl-C.
    """
    try:
        yield
    except ReasoningEmbeddingError as error:
        typer.echo(f"error: {written(str(error))}", err=True)
        raise SystemExit(error.exit_code) from error
    except KeyboardInterrupt as error:
        typer.echo("interrupted", err=True)
        raise SystemExit(INTERRUPTED) from error
    except Exception as error:
        if (told := full_disk(error)) is None:
            raise
        typer.echo(f"error: {told}", err=True)
        raise SystemExit(told.exit_code) from error
