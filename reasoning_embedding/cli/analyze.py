"""``rembed analyze``: HRSA between two models."""

from __future__ import annotations

import itertools
import re
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
    SkipFirst,
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
    skip_first: SkipFirst = None,
    sibling: Annotated[
        str | None,
        typer.Option(
            help="A model grown like A from other seeds: how far two of its kind are apart. With --weights: one trained "
            "like B from A.",
            metavar="MODEL",
        ),
    ] = None,
    weights: Annotated[
        bool,
        typer.Option(
            "--weights",
            help="Compare the weights instead of what they make of texts: what training from A to B did to each matrix.",
        ),
    ] = False,
    levels: Annotated[
        bool,
        typer.Option(
            "--levels/--no-levels",
            help="Also measure models with fresh weights and other texts, which takes about twice as long.",
        ),
    ] = True,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The JSON file of the whole result; default analysis-A-B.json here."
        ),
    ] = None,
    device: DeviceName = "auto",
) -> None:
    """Compare two models at the levels of representation, geometry and function; or of their weights.

    Ranks that torchrun or accelerate launched share the texts.

    Raises
    ------
    InputError
        If a model or the probe cannot be used.
    """
    rows = row_settings(tokens, max_tokens, skip_first)
    path = output or _free_name(a, b)
    require_output_file(path)
    if weights:
        _analyze_weights(a, b, sibling, path, device)
        return
    from reasoning_embedding.config import Analysis

    from ._terminal import silence_libraries, speaker

    silence_libraries()
    chosen = chosen_probe(probe, text, label, texts=texts, traces=traces)
    from reasoning_embedding.checkpoints.references import resolve
    from reasoning_embedding.distributed import joined_world
    from reasoning_embedding.experiments.comparisons import checkpoint, make_instrument
    from reasoning_embedding.files import write_json
    from reasoning_embedding.hrsa.pair import compare
    from reasoning_embedding.reports.analysis_text import analysis_lines

    sides = [checkpoint(resolve(reference)) for reference in (a, b)]
    twin = None if sibling is None else checkpoint(resolve(sibling))
    settings = Analysis(probe=chosen, **rows)
    with joined_world(device=device) as world:
        say = speaker() if world.is_main else lambda line: None
        instrument = make_instrument(settings, None, say, world)
        result = compare("pair", *sides, instrument, levels=levels, sibling=twin)
    if not world.is_main:
        return
    write_json(path, result, summed=True)
    for line in analysis_lines(result):
        typer.echo(line)
    typer.echo(f"result: {path}")
    next_command("analyze")


def _analyze_weights(a: str, b: str, sibling: str | None, path: Path, device: DeviceName) -> None:
    """Compare the weights of two models and write what was found."""
    from reasoning_embedding.checkpoints.references import resolve
    from reasoning_embedding.distributed.world import chosen_device
    from reasoning_embedding.experiments.comparisons import open_weights
    from reasoning_embedding.files import write_json
    from reasoning_embedding.hrsa.weights import weights_record
    from reasoning_embedding.reports.weights_text import weight_lines

    from ._terminal import speaker

    before, after = (open_weights(resolve(reference)) for reference in (a, b))
    twin = None if sibling is None else open_weights(resolve(sibling))
    found = weights_record(before, after, speaker(), sibling=twin, device=chosen_device(device))
    result = {"a": a, "b": b, **found}
    if sibling is not None:
        result["sibling"] = {"reference": sibling, **found["sibling"]}
    write_json(path, result, summed=True)
    for line in weight_lines(result):
        typer.echo(line)
    typer.echo(f"result: {path}")


def _free_name(a: str, b: str) -> Path:
    """A file in the current folder that no other result has."""
    short = [
        re.sub(r"[^A-Za-z0-9.]+", "-", reference.rstrip("/"))[-40:].strip("-.") or "model"
        for reference in (a, b)
    ]
    name = f"analysis-{short[0]}-{short[1]}"
    numbers = itertools.count(2)
    path = Path(f"{name}.json")
    while path.exists():
        path = Path(f"{name}-{next(numbers)}.json")
    return path
