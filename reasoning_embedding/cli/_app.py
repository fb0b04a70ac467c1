"""How a function becomes a verb."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated

import typer

#: Overrides of a configuration, as every verb that reads one takes them.
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Overrides, such as training.steps=100.", metavar="[KEY=VALUE]...")
]
_SETTINGS = {"help_option_names": ["-h", "--help"]}


def make_app(text: str | None = None) -> typer.Typer:
    """Return a typer application with the settings all verbs share.

    No pretty exceptions: an unexpected error shows Python's own traceback. No rich help: importing it
    would take a third of the time of ``--help``.

    Parameters
    ----------
    text : str, optional
        Help of a group of verbs; a group without a verb prints its help.
    """
    return typer.Typer(
        help=text,
        short_help=text,
        add_completion=False,
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
