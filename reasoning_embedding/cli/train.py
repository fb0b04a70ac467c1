"""``rembed train``: one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._app import Overrides


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
    from reasoning_embedding.config import ExperimentConfig, RunConfig, load_config

    from ._say import quiet_libraries, speaker

    expect = RunConfig if run_name is None else ExperimentConfig
    loaded = load_config(config, overrides or (), expect=expect)
    quiet_libraries()
    from reasoning_embedding.experiments import run_config
    from reasoning_embedding.experiments.contamination import contamination_of
    from reasoning_embedding.experiments.scoring import training_score
    from reasoning_embedding.experiments.tracking import tracking_of
    from reasoning_embedding.training import train

    say = speaker()
    settings = loaded.config if run_name is None else run_config(loaded.config, run_name)
    track = tracking_of(settings, say)
    run = train(
        settings,
        text=loaded.text if run_name is None else None,
        resume=resume,
        report=say,
        score=training_score(settings, say),
        examine=contamination_of(settings, say),
    )
    typer.echo(f"run folder: {run.path}")
    if track is not None:
        track(run)
