"""``rembed train``: one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._app import Overrides
from ._terminal import next_command


def command(
    config: Annotated[
        Path, typer.Argument(help="A YAML file of kind run, or of kind experiment.", metavar="CONFIG")
    ],
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest saved state.")] = False,
    run_name: Annotated[
        str | None, typer.Option("--run", help="Which run of an experiment, whose backbone is grown.")
    ] = None,
) -> None:
    """Train an embedder from a backbone; launch it with accelerate or torchrun for several ranks.

    Raises
    ------
    ReasoningEmbeddingError
        For a config, data, backbone or folder that cannot be used, or a loss that is not finite.
    """
    from reasoning_embedding.api import train

    from ._terminal import silence_libraries, speaker

    silence_libraries()
    trained = train(
        config, overrides=overrides or (), run=run_name, resume=resume, progress=False, report=speaker()
    )
    typer.echo(f"run folder: {trained.path}")
    next_command("train", run=trained.path)
