"""``rembed analyze``: HRSA between two models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reasoning_embedding.errors import InputError


def command(
    a: Annotated[str, typer.Argument(help="A checkpoint folder: backbone or embedder.", metavar="A")],
    b: Annotated[str, typer.Argument(help="Another one.", metavar="B")],
    probe: Annotated[
        Path | None, typer.Option(help="JSONL texts to compare on; absent: the miniature world's.")
    ] = None,
    text: Annotated[str, typer.Option(help="Field of the probe file that holds the text.")] = "text",
    label: Annotated[str | None, typer.Option(help="Field that holds a class, for linear probes.")] = None,
    tokens: Annotated[str, typer.Option(help="Rows compared: all, last or mean.")] = "all",
    texts: Annotated[int, typer.Option(min=1, help="At most this many texts of the file.")] = 500,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the whole result as JSON.")
    ] = None,
) -> None:
    """Compare two models at the levels of representation, geometry and function.

    Raises
    ------
    InputError
        If a model or the probe cannot be used.
    """
    if tokens not in ("all", "last", "mean"):
        raise InputError(f"no token rule {tokens!r}", where="--tokens", todo="all, last or mean")
    from reasoning_embedding.config import Analysis, TextProbe, WorldProbe

    from ._say import quiet_libraries, speaker

    quiet_libraries()
    chosen = (
        WorldProbe(kind="world")
        if probe is None
        else TextProbe(kind="text", path=str(probe), text=text, label=label, texts=texts)
    )
    from reasoning_embedding.checkpoints import write_json
    from reasoning_embedding.hrsa.compare import compare
    from reasoning_embedding.sweeps import resolve

    result = compare(
        "pair",
        resolve(a, Path()),
        resolve(b, Path()),
        Analysis(probe=chosen, tokens=tokens),
        reference_a=a,
        reference_b=b,
        report=speaker(),
    )
    for name, value in result["last"].items():
        low, high = result["intervals"].get(name, (None, None))
        interval = f"  [{low:.4f}, {high:.4f}]" if low is not None else ""
        chance = result["chance"].get(name)
        by_chance = f"  chance {chance:.4f}" if chance is not None else ""
        typer.echo(f"{name:24s} {'-' if value is None else format(value, '.4f')}{interval}{by_chance}")
    for warning in result["warnings"]:
        typer.echo(f"warning: {warning}")
    if output is not None:
        write_json(output, result)
        typer.echo(f"result: {output}")
