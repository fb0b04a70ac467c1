"""What a merge's configuration names: its models, and the merges it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.checkpoints.references import resolve
from reasoning_embedding.errors import InputError

from .tracking import series_of


@dataclass(frozen=True)
class Point:
    """One merge of a configuration: its name, its method and, along a path, its place."""

    name: str
    method: config.MergeMethod
    t: float | None = None


def points_of(settings: config.MergeConfig) -> list[Point]:
    """List the merges of a configuration in order."""
    if settings.path is None:
        return [Point(settings.method.kind, settings.method)]
    from reasoning_embedding.merging.tensor_merge import at

    methods = [settings.method, *settings.path.beside]
    return [
        Point(f"{method.kind}-{t:g}", at(method, t), t)
        for method in methods
        if isinstance(method, config.Slerp | config.Linear)
        for t in settings.path.t
    ]


def models_of(settings: config.MergeConfig) -> list[tuple[str, Path]]:
    """Return what the user calls each model, and its folder.

    Raises
    ------
    InputError
        If a run or a step is not there.
    """
    if isinstance(settings.models, list):
        return [(reference, resolve(reference).folder) for reference in settings.models]
    wanted = settings.models
    if not RunFolder(Path(wanted.run)).checkpoints.is_dir():
        raise InputError("there is no run here", where=wanted.run, todo="models.run is a run's folder")
    [series] = series_of([wanted.run])
    steps = list(series.chosen("saved" if wanted.steps == "all" else wanted.steps).models.items())
    kept = steps[-wanted.last :] if wanted.last else steps
    return [(f"{series.name}@{step}", Path(path)) for step, path in kept]
