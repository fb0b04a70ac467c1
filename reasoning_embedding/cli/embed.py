"""``rembed embed``: vectors of a file's lines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_file, require_output_file


def command(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="A checkpoint folder, a step of a run, or any embedder: a folder or OWNER/NAME@REVISION.",
            metavar="MODEL|RUN@STEP",
        ),
    ],
    texts: Annotated[Path, typer.Argument(help="A file with one text a line.", metavar="TEXTS")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the vectors go (.npy).")],
    prompt: Annotated[str, typer.Option(help="Put before every text.")] = "",
    max_tokens: Annotated[int, typer.Option(min=1, help="Longer texts are cut.")] = 512,
) -> None:
    """Embed the lines of a file and write them as float32 rows of unit length.

    Raises
    ------
    InputError
        If the texts or the checkpoint cannot be read.
    SetupError
        If the output cannot be written.
    """
    require_output_file(output)
    lines = _lines(texts)
    from ._terminal import silence_libraries

    silence_libraries()
    import numpy as np
    import torch

    from reasoning_embedding.checkpoints.models import open_embedder
    from reasoning_embedding.checkpoints.references import resolve

    device = "cuda" if torch.cuda.is_available() else "cpu"
    embedder = open_embedder(resolve(checkpoint), device=device, report=typer.echo)
    vectors = embedder.encode(lines, prompt=prompt, max_tokens=max_tokens)
    with atomic_file(output) as temporary, temporary.open("wb") as file:
        np.save(file, vectors)
    typer.echo(f"{len(vectors)} x {vectors.shape[1]} float32: {output}")


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(
            f"cannot read: {error.strerror}", where=str(path), todo="name a text file"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            "not UTF-8 text", where=f"{path}: byte {error.start}", todo="convert it to UTF-8"
        ) from error
    empty = [number for number, line in enumerate(lines, start=1) if not line.strip()]
    if empty or not lines:
        what = "there is no text" if not lines else "this line is empty"
        raise InputError(what, where=f"{path}:{empty[0] if empty else 1}", todo="one text a line, none empty")
    return lines
