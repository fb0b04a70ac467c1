"""``rembed analyze``: HRSA between two models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reasoning_embedding.files import require_output_file

from ._app import DeviceName
from ._probe_options import (
    Count,
    LabelField,
    MaxTokens,
    Rule,
    TextField,
    Texts,
    Traces,
    chosen_probe,
    row_settings,
)
from ._terminal import next_command


def command(
    a: Annotated[
        str,
        typer.Argument(
            help="A backbone or an embedder: its folder, RUN@STEP, or OWNER/NAME@REVISION.", metavar="A"
        ),
    ],
    b: Annotated[str, typer.Argument(help="Another one.", metavar="B")],
    probe: Texts = None,
    text: TextField = "text",
    label: LabelField = None,
    traces: Traces = False,
    tokens: Rule = None,
    texts: Count = 500,
    max_tokens: MaxTokens = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the whole result as JSON.")
    ] = None,
    device: DeviceName = "auto",
) -> None:
    """Compare two models at the levels of representation, geometry and function.

    Ranks that torchrun or accelerate launched share the texts.

    Raises
    ------
    InputError
        If a model or the probe cannot be used.
    """
    if output is not None:
        require_output_file(output)
    rows = row_settings(tokens, max_tokens)
    from reasoning_embedding.config import Analysis

    from ._terminal import silence_libraries, speaker

    silence_libraries()
    chosen = chosen_probe(probe, text, label, texts=texts, traces=traces)
    from reasoning_embedding.checkpoints.references import resolve
    from reasoning_embedding.distributed import joined_world
    from reasoning_embedding.experiments.comparisons import checkpoint, make_instrument
    from reasoning_embedding.files import write_json
    from reasoning_embedding.hrsa.pair import compare

    sides = [checkpoint(resolve(reference)) for reference in (a, b)]
    settings = Analysis(probe=chosen, **rows)
    with joined_world(device=device) as world:
        say = speaker() if world.is_main else lambda line: None
        result = compare("pair", *sides, make_instrument(settings, None, say, world))
    if not world.is_main:
        return
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
    next_command("rembed track RUN")
