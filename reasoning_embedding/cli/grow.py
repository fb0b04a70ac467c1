"""``rembed grow``: a lineage of backbones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reasoning_embedding.errors import InputError

from ._app import Overrides
from ._terminal import next_command, silence_libraries, speaker

if TYPE_CHECKING:
    from collections.abc import Callable

    from reasoning_embedding.config import LineageConfig
    from reasoning_embedding.distributed import World


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
    from reasoning_embedding.config import ExperimentConfig, LineageConfig, load_config

    settings = load_config(config, overrides or (), expect=(LineageConfig, ExperimentConfig)).config
    if isinstance(settings, ExperimentConfig):
        if settings.lineage is None:
            raise InputError(
                "this experiment grows no lineage", where=str(config), todo="give it a lineage section"
            )
        place = {"kind": "lineage", "name": settings.name, "output_dir": settings.output_dir}
        settings = LineageConfig.model_validate(settings.lineage.model_dump() | place)
    silence_libraries()
    from reasoning_embedding.distributed import explain_lost_ranks, joined_world
    from reasoning_embedding.lineages import grow

    with joined_world(timeout_minutes=120) as world:
        say = speaker() if world.is_main else lambda line: None
        with explain_lost_ranks(world):
            folders = grow(settings, say, world)
        for name, folder in folders.items():
            say(f"{name}: {folder}")
        _track(settings, folders, say, world)
    if folders:
        next_command("grow", folder=list(folders.values())[-1])


def _track(
    settings: LineageConfig, folders: dict[str, Path], say: Callable[[str], None], world: World
) -> None:
    """Measure how every stage that keeps steps moves, where the lineage has an ``hrsa`` section."""
    if settings.hrsa is None:
        return
    from reasoning_embedding.experiments.comparisons import series_of, track_series

    kept = [str(folders[stage.name]) for stage in settings.stages if getattr(stage, "checkpoints", None)]
    for series in series_of(kept):
        say(f"track: {track_series(series, settings.hrsa, say, world=world)}")
