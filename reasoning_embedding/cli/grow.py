"""``rembed grow``: a lineage of backbones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    config: Annotated[Path, typer.Argument(help="A YAML file of kind lineage.", metavar="CONFIG")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Overrides.", metavar="[KEY=VALUE]...")
    ] = None,
) -> None:
    """Grow a base by pre-training, and its SFT and RLVR siblings from it; finished stages are kept.

    Raises
    ------
    ReasoningEmbeddingError
        For a config that cannot be used, or a stage that misses its quality gate.
    """
    from reasoning_embedding.config import LineageConfig, load_config

    from ._say import quiet_libraries, speaker

    loaded = load_config(config, overrides or (), expect=LineageConfig)
    quiet_libraries()
    from reasoning_embedding.lineages import grow

    for name, folder in grow(loaded.config, speaker()).items():
        typer.echo(f"{name}: {folder}")
