"""``rembed merge``: embedders become one, or a path of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._app import Overrides
from ._terminal import next_command


def command(
    config: Annotated[Path, typer.Argument(help="A YAML file of kind merge.", metavar="CONFIG")],
    overrides: Overrides = None,
) -> None:
    """Merge embedders by SLERP, soup, TIES and others; score and analyse what comes out; make its page.

    Prints cosine, norms and angle of every tensor, and where SLERP fell back to LERP. What is done already is kept.

    Raises
    ------
    InputError
        If a model is missing, damaged or does not fit the others.
    SetupError
        If mergekit is not installed.
    ReasoningEmbeddingError
        If a task failed; the merges and the other tasks are there.
    """
    from reasoning_embedding.config import MergeConfig, load_config

    from ._terminal import silence_libraries, speaker

    loaded = load_config(config, overrides or (), expect=MergeConfig)
    silence_libraries()
    from reasoning_embedding.experiments.merges import run_merge
    from reasoning_embedding.experiments.scoring import tasks_failed

    record = run_merge(loaded.config, text=loaded.text, report=speaker())
    from reasoning_embedding.reports.pages.merge import build_merge, merge_tables

    folder = Path(loaded.config.output_dir) / loaded.config.name
    typer.echo("\n" + merge_tables(folder))
    typer.echo(f"report: {build_merge(folder).resolve()}")
    next_command("merge")
    for point in record["points"]:
        if point["t"] is None:
            typer.echo(f"model: {folder / point['model']}")
    if record["failed"]:
        raise tasks_failed(record["failed"])
