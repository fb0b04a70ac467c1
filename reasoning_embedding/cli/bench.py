"""``rembed bench``: speed and memory against the libraries one would use instead."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._app import add, make_app

app = make_app("Speed and memory against the libraries one would use instead.")


def encode(
    json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="One small corpus; about three minutes.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the results as a JSON file.")
    ] = None,
) -> None:
    """Packed encoding against SentenceTransformer.encode at its best batch size.

    Runs on the corpora of the folder that REASONING_EMBEDDING_DATA names, else on generated text.

    Raises
    ------
    InputError
        If that folder has no such corpora.
    SetupError
        If the results cannot be written.
    """
    from json import dumps

    from reasoning_embedding.checkpoints.atomic import write_json
    from reasoning_embedding.evaluation.bench_encode import bench_encode

    from ._say import quiet_libraries

    quiet_libraries()
    results = []
    for result in bench_encode(quick=quick, report=lambda line: typer.echo(line, err=True)):
        results.append(result)
        if json:
            typer.echo(dumps(result, ensure_ascii=False))
        else:
            memory = "" if result["memory_ratio"] is None else f", memory x{result['memory_ratio']:.2f}"
            typer.echo(
                f"{result['name']}: {result['ours']:.0f} against {result['other']:.0f} {result['unit']}, "
                f"x{result['ratio']:.2f}{memory}"
            )
    if output is not None:
        write_json(output, results)


def run_all(
    json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Small inputs.")] = False,
) -> None:
    """Run every benchmark."""
    encode(json=json, quick=quick)


add(app, encode, "encode")
add(app, run_all, "all")
