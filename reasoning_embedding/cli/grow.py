"""``rembed grow``: a lineage of backbones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reasoning_embedding.errors import InputError

from ._app import Overrides


def command(
    config: Annotated[
        Path, typer.Argument(help="A YAML file: a lineage, or an experiment with one.", metavar="CONFIG")
    ],
    overrides: Overrides = None,
) -> None:
    """Grow a base by pre-training, and its SFT and RLVR siblings from it; finished stages are kept.

    Raises
    ------
    ReasoningEmbeddingError
        For a config that cannot be used, or a stage that misses its quality gate.
    """
    from reasoning_embedding.config import ExperimentConfig, LineageConfig, load_config

    from ._say import quiet_libraries, speaker

    settings = load_config(config, overrides or (), expect=(LineageConfig, ExperimentConfig)).config
    if isinstance(settings, ExperimentConfig):
        if settings.lineage is None:
            raise InputError(
                "this experiment grows no lineage", where=str(config), todo="give it a lineage section"
            )
        place = {"kind": "lineage", "name": settings.name, "output_dir": settings.output_dir}
        settings = LineageConfig.model_validate(settings.lineage.model_dump() | place)
    quiet_libraries()
    from reasoning_embedding.lineages import grow

    for name, folder in grow(settings, speaker()).items():
        typer.echo(f"{name}: {folder}")
