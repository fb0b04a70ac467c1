"""``rembed init``: a run file for a data set and a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_write, require_output_file

from ._terminal import next_command


def command(
    data: Annotated[
        str,
        typer.Argument(
            help="A file or folder (JSONL, JSON, CSV, TSV, parquet, save_to_disk), or OWNER/NAME of the Hub.",
            metavar="DATA",
        ),
    ],
    model: Annotated[
        str, typer.Argument(help="What to train: a model folder, or OWNER/NAME of the Hub.", metavar="MODEL")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("run.yaml"),
    name: Annotated[str | None, typer.Option(help="Name of the run. Absent: the data's.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a run file: lengths, negatives, batch, packs and memory from the data, the model and this machine.

    Raises
    ------
    InputError
        If the data cannot be read as rows, there is no such model, or the file is there already.
    SetupError
        If the Hub cannot be reached.
    """
    require_output_file(output)
    if output.exists() and not force:
        raise InputError(
            "this file is there already", where=str(output.absolute()), todo="choose another -o, or --force"
        )
    from ._terminal import silence_libraries

    silence_libraries()
    from reasoning_embedding.config import load_config
    from reasoning_embedding.distributed import chosen_device
    from reasoning_embedding.planning.draft import draft_run

    draft = draft_run(data, model, name=name, on_gpu=chosen_device().type == "cuda")
    atomic_write(output, draft.text)
    load_config(output)
    for line in draft.found:
        typer.echo(line)
    typer.echo(f"run file: {output}")
    next_command("init", config=output)
