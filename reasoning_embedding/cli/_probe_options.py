"""The options of a probe set and of its rows, as every verb that measures models takes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reasoning_embedding.errors import InputError

if TYPE_CHECKING:
    from reasoning_embedding.config import Probe

Texts = Annotated[
    Path | None,
    typer.Option(
        "--probe", help="Texts to measure on: JSONL, parquet, CSV or lines; absent: a miniature world's."
    ),
]
TextField = Annotated[str, typer.Option("--text", help="Field or column of the probe that holds the text.")]
LabelField = Annotated[
    str | None, typer.Option("--label", help="Field or column that holds a class, for linear probes.")
]
Traces = Annotated[
    bool, typer.Option("--traces", help="The probe holds chains of thought: their trace, solution or answer.")
]
Rule = Annotated[
    str | None, typer.Option("--tokens", help="Rows compared: all tokens (default), last or mean.")
]
Count = Annotated[int, typer.Option("--texts", min=1, help="At most this many texts of the file.")]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", min=1, help="Longer texts are cut; default 128.")
]
SkipFirst = Annotated[
    str | None,
    typer.Option(
        "--skip-first",
        help="Leading tokens of every text that are no rows: a number, or auto (default: those that are seen to be "
        "attention sinks).",
    ),
]


def chosen_probe(path: Path | None, text: str, label: str | None, *, texts: int, traces: bool) -> Probe:
    """Return the probe set the options name."""
    from reasoning_embedding.config import TextProbe, TracesProbe, WorldProbe

    if path is None:
        return WorldProbe(kind="world")
    if traces:
        return TracesProbe(kind="traces", path=str(path), texts=texts)
    return TextProbe(kind="text", path=str(path), text=text, label=label, texts=texts)


def row_settings(tokens: str | None, max_tokens: int | None, skip_first: str | None = None) -> dict[str, Any]:
    """Return the settings of rows that were given.

    Raises
    ------
    InputError
        If there is no such token rule, or so many tokens cannot be left out.
    """
    if tokens not in (None, "all", "last", "mean"):
        raise InputError(f"no token rule {tokens!r}", where="--tokens", todo="all, last or mean")
    if skip_first not in (None, "auto") and not skip_first.isdecimal():
        raise InputError(
            f"cannot leave out {skip_first!r} tokens", where="--skip-first", todo="auto, or 0, 1, ..."
        )
    skip = int(skip_first) if skip_first and skip_first.isdecimal() else skip_first
    given = {"tokens": tokens, "max_tokens": max_tokens, "skip_first": skip}
    return {name: value for name, value in given.items() if value is not None}
