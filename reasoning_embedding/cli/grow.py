"""``rembed grow``: a lineage of backbones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._app import Overrides
from ._terminal import next_command, silence_libraries, speaker


def command(
    config: Annotated[
        Path, typer.Argument(help="A YAML file: a lineage, or an experiment with one.", metavar="CONFIG")
    ],
    overrides: Overrides = None,
) -> None:
    """Grow backbones: a base, given or pre-trained, and its SFT, DPO and RLVR siblings; finished stages are kept.

    Launch it with accelerate or torchrun for several ranks. A lineage with an hrsa section is tracked through
    the steps that its stages keep.

    Raises
    ------
    ReasoningEmbeddingError
        For a config that cannot be used, or a stage that misses its quality gate or learns nothing.
    """
    silence_libraries()
    from reasoning_embedding.api import grow

    folders = grow(config, overrides=overrides or (), report=speaker())
    if folders:
        next_command("grow", folder=list(folders.values())[-1])
