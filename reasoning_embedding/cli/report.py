"""``rembed report``: the page of an experiment or a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[Path, typer.Argument(help="An experiment's or a run's folder.", metavar="FOLDER")],
) -> None:
    """Make the page, figures and table of a folder.

    Raises
    ------
    InputError
        If the folder is neither an experiment nor a run.
    """
    from reasoning_embedding.reports import build, summary_table

    page = build(folder, typer.echo)
    typer.echo(summary_table(folder))
    typer.echo(f"report: {page.resolve()}")
