"""What is known of a checkpoint, read from its run's folder: ancestors, recipe, data, scores."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints import RunFolder, read_provenance
from reasoning_embedding.checkpoints.scores import mean_scores
from reasoning_embedding.files import read_json

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Ancestor:
    """A model that the published one was made from, at some distance.

    Attributes
    ----------
    name : str
        Hub id, or the name of a folder.
    kind : str
        What made it (``pretrain``, ``sft``, ``rlvr``, ``contrastive``, ...), ``hub`` or ``random``; ``unknown``
        where its folder has no record.
    depth : int
        1 for a parent, 2 for a parent's parent.
    revision, content_hash : str or None
        As its child recorded them.
    """

    name: str
    kind: str
    depth: int
    revision: str | None = None
    content_hash: str | None = None


def ancestors(record: dict[str, Any], lineage: Path | None, depth: int = 1) -> Iterator[Ancestor]:
    """Follow ``parent`` (or ``parents``, of a merged model) as far as their records are on this machine.

    Parameters
    ----------
    record : dict
        A ``provenance.json``.
    lineage : Path or None
        Folder of the experiment's backbones, for paths that no longer resolve.
    depth : int
        Distance of the parents from the published model.
    """
    for parent in parents(record):
        if "path" not in parent:
            name = f"{(parent.get('architecture') or {}).get('model_type', 'a decoder')}, random weights"
            yield Ancestor(name, "random", depth)
            continue
        path, recorded = str(parent["path"]), parent.get("content_hash")
        places = [Path(path), *([lineage / Path(path).name] if lineage else [])]
        folder = next((place for place in places if _is(place, recorded)), None)
        if folder is None and recorded is None and _HUB_ID.fullmatch(path) and not Path(path).is_dir():
            yield Ancestor(path, "hub", depth, parent.get("revision"))
            continue
        own = (read_provenance(folder) if folder else None) or {}
        name = Path(path).name
        if own.get("kind") == "contrastive" and own.get("run"):
            name = f"{own['run']} {name}"
        yield Ancestor(name, str(own.get("kind", "unknown")), depth, parent.get("revision"), recorded)
        yield from ancestors(own, lineage, depth + 1)


def parents(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parents that a provenance record names: one, several, or none."""
    found = record.get("parents") or record.get("parent") or []
    found = [found] if isinstance(found, dict) else found
    return [parent for parent in found if isinstance(parent, dict)]


def _is(folder: Path, recorded: str | None) -> bool:
    if recorded is None or not folder.is_dir():
        return False
    return (read_provenance(folder) or {}).get("content_hash") == recorded


@dataclass(frozen=True)
class RunRecord:
    """A run's settings and surroundings; empty for a checkpoint without a run.

    Attributes
    ----------
    settings : dict
        The resolved configuration.
    manifest : dict
        Versions, data, hardware.
    contamination : dict
        Evaluation texts found in the training data.
    figures : dict
        Title -> PNG of a finished report.
    lineage : Path or None
        Folder of the experiment's backbones.
    """

    settings: dict[str, Any]
    manifest: dict[str, Any]
    contamination: dict[str, Any]
    figures: dict[str, Path]
    lineage: Path | None


def read_run(run: RunFolder | None) -> RunRecord:
    """Read what a run's folder, and the experiment around it, say.

    Raises
    ------
    InputError
        If a file there is damaged.
    """
    if run is None:
        return RunRecord({}, {}, {}, {}, None)
    experiment = run.experiment
    compared = run.contamination if run.contamination.exists() else experiment.contamination
    return RunRecord(
        settings=_read(run.config_json),
        manifest=_read(run.manifest),
        contamination=_read(compared),
        figures=_figures(run.path) or _figures(experiment.path),
        lineage=experiment.lineage,
    )


_FIGURES = {
    "realignment": "HRSA by training step: how the representation moved from the backbone, and to its siblings",
    "layers": "HRSA by layer",
}


def _figures(folder: Path) -> dict[str, Path]:
    found = {title: folder / "report" / "figures" / f"{name}.png" for name, title in _FIGURES.items()}
    return {title: path for title, path in found.items() if path.is_file()}


def mean_score(scores: dict[str, Any] | None) -> float | None:
    """Mean of the main scores over tasks; None where one is missing."""
    return mean_scores(scores["tasks"], scores["failed"])["by_task"] if scores else None


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, todo="restore the file") if path.exists() else {}
