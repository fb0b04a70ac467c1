"""``rembed embed``: vectors of a file's texts."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from reasoning_embedding.files import require_output_file

from ._app import DeviceName
from ._terminal import next_command


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
    texts: Annotated[
        Path,
        typer.Argument(
            help="JSON Lines, CSV, TSV (each also .gz), parquet or a folder of them; any other file: a text a line.",
            metavar="TEXTS",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the vectors go: .npy, .parquet or .safetensors.")
    ],
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="The column of the texts; twice for a title and a text. Absent: text, or the only one."
        ),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="The column of the ids. Absent: _id or id, else the number of the row.")
    ] = None,
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
        typer.Option(help="int8: a byte an entry, its range in <stem>.ranges.npy; binary: a bit."),
    ] = None,
    ranges: Annotated[
        Path | None,
        typer.Option(help="With int8: the ranges that another call wrote, so that both give one code."),
    ] = None,
    device: DeviceName = "auto",
) -> None:
    """Embed the texts of a file and write rows of unit length with their ids, float32 unless quantized.

    A job that was stopped goes on when the same command is given again. Under torchrun or accelerate launch every
    rank embeds its share.

    Raises
    ------
    InputError
        If the texts, the model or the ranges cannot be read.
    SetupError
        If the output cannot be written, or the Hub not be reached.
    """
    require_output_file(output)
    from ._terminal import silence_libraries

    silence_libraries()
    from reasoning_embedding.backbones.compression import Compression
    from reasoning_embedding.data.named_texts import TextSource
    from reasoning_embedding.preparing.embedding import EmbedOptions, embed_file

    options = EmbedOptions(
        prompt,
        prompt_name,
        max_tokens,
        Compression(truncate, quantize.value if quantize else None),
        ranges,
    )
    source = TextSource(texts, tuple(column or ()), id_column)
    embed_file(checkpoint, source, output, options, device=device, report=typer.echo)
    next_command("embed", model=checkpoint)
