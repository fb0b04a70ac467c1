"""``rembed experiment``: grow, train, evaluate, analyse and report from one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._app import Overrides


def command(
    config: Annotated[Path, typer.Argument(help="A YAML file of kind experiment.", metavar="CONFIG")],
    overrides: Overrides = None,
) -> None:
    """Run every stage of an experiment that is not done yet, then make its page.

    Raises
    ------
    ReasoningEmbeddingError
        When the config cannot be used or a stage fails; finished stages are kept.
    """
    from reasoning_embedding.config import ExperimentConfig, load_config

    from ._say import speaker

    loaded = load_config(config, overrides or (), expect=ExperimentConfig)
    say = speaker()
    from reasoning_embedding.sweeps import run_experiment

    folder = run_experiment(loaded.config, text=loaded.text, report=say)
    from reasoning_embedding.reports import build, summary_table

    page = build(folder, say)
    typer.echo(summary_table(folder))
    typer.echo(f"report: {page.resolve()}")
