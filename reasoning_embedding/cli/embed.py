"""``rembed embed``: vectors of a file's lines."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_file, require_output_file, require_space

from ._app import DeviceName

if TYPE_CHECKING:
    import numpy as np


class Quantize(StrEnum):
    """Codes of a vector's entries."""

    int8 = "int8"
    binary = "binary"


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
    prompt: Annotated[
        str | None,
        typer.Option(help="Put before every text. Absent: the model's default prompt, if it has one."),
    ] = None,
    prompt_name: Annotated[
        str | None, typer.Option(help="A prompt of the model by its name, such as query or document.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longer texts are cut. Absent: at the model's own limit.")
    ] = None,
    truncate: Annotated[
        int | None, typer.Option(min=1, help="Keep the first entries of each vector, at unit length again.")
    ] = None,
    quantize: Annotated[
        Quantize | None,
        typer.Option(help="int8: a byte an entry, its range in OUTPUT.ranges.npy; binary: a bit."),
    ] = None,
    ranges: Annotated[
        Path | None,
        typer.Option(help="With int8: the ranges that another call wrote, so that both give one code."),
    ] = None,
    device: DeviceName = "auto",
) -> None:
    """Embed the lines of a file and write them as rows of unit length, float32 unless quantized.

    Raises
    ------
    InputError
        If the texts, the model or the ranges cannot be read.
    SetupError
        If the output cannot be written, or the Hub not be reached.
    """
    if prompt is not None and prompt_name is not None:
        raise InputError(
            "--prompt and --prompt-name both say what stands before a text", todo="give one of them"
        )
    if ranges is not None and quantize != Quantize.int8:
        raise InputError(
            "--ranges are those of int8 codes", todo="add --quantize int8, or leave --ranges out"
        )
    require_output_file(output)
    lines = _lines(texts)
    from ._terminal import silence_libraries

    silence_libraries()
    import numpy as np

    from reasoning_embedding.checkpoints.models import open_embedder
    from reasoning_embedding.checkpoints.references import resolve
    from reasoning_embedding.distributed import chosen_device
    from reasoning_embedding.evaluation.compression import Compression, ranges_of

    embedder = open_embedder(resolve(checkpoint), device=chosen_device(device), report=typer.echo)
    compression = Compression(truncate, quantize.value if quantize else None)
    dimension = compression.dimension(embedder.dimension)
    between = None if ranges is None else _ranges(ranges, dimension)
    needed = len(lines) * compression.bytes(embedder.dimension)
    require_space(output, needed, f"{len(lines):,} vectors")
    vectors = compression.shorten(
        embedder.encode(lines, prompt=prompt, prompt_name=prompt_name, max_tokens=max_tokens)
    )
    if quantize == Quantize.int8 and between is None:
        between = ranges_of(vectors)
        beside = output.with_suffix(".ranges.npy")
        with atomic_file(beside) as temporary, temporary.open("wb") as file:
            np.save(file, between)
        typer.echo(f"ranges of these texts: {beside} (embed queries with --ranges {beside})")
    codes = compression.codes(vectors, between)
    with atomic_file(output) as temporary, temporary.open("wb") as file:
        np.save(file, codes)
    typer.echo(f"{len(codes)} x {dimension} {quantize.value if quantize else 'float32'}: {output}")


def _ranges(path: Path, dimension: int) -> np.ndarray:
    """Read what int8 steps lie between."""
    import numpy as np

    todo = "name the .ranges.npy that `rembed embed --quantize int8` wrote for this model"
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"cannot be read as ranges: {error}", where=str(path), todo=todo) from error
    if found.shape != (2, dimension):
        raise InputError(
            f"ranges of shape {found.shape}, where (2, {dimension}) is needed", where=str(path), todo=todo
        )
    return found


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
