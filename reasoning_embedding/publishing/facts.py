"""Everything a model card is written from: the checkpoint, its run and its scores, and what only its author knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.checkpoints.layout import ResultFolder
from reasoning_embedding.checkpoints.provenance import Ancestor, ancestors, parents
from reasoning_embedding.checkpoints.run_records import read_manifest, read_settings
from reasoning_embedding.checkpoints.scores import mean_scores
from reasoning_embedding.files import read_json

from .release import Release, Revision, check_repo_name

_RESTORE = "restore the file"


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
        settings=read_settings(run),
        manifest=read_manifest(run),
        contamination=read_json(compared, default={}, todo=_RESTORE),
        figures=_figures(run) or _figures(experiment),
        lineage=experiment.lineage,
    )


_FIGURES = {
    "realignment": "HRSA by training step: how the representation moved from the backbone, and to its siblings",
    "layers": "HRSA by layer",
}


def _figures(folder: ResultFolder) -> dict[str, Path]:
    found = {title: folder.report / "figures" / f"{name}.png" for name, title in _FIGURES.items()}
    return {title: path for title, path in found.items() if path.is_file()}


def mean_score(scores: dict[str, Any] | None) -> float | None:
    """Mean of the main scores over tasks; None where one is missing."""
    return mean_scores(scores["tasks"], scores["failed"])["by_task"] if scores else None


@dataclass(frozen=True)
class About:
    """What only the person who publishes knows.

    Attributes
    ----------
    license : str or None
        Licence of the model, as the Hub spells it (``apache-2.0``).
    languages : tuple of str
        Codes such as ``en``.
    base_model : str or None
        Hub id of the backbone, where the run started from a local folder.
    """

    license: str | None = None
    languages: tuple[str, ...] = ()
    base_model: str | None = None

    def __post_init__(self) -> None:
        if self.base_model:
            check_repo_name(self.base_model)


@dataclass(frozen=True)
class Facts:
    """Everything a card is written from.

    Attributes
    ----------
    release, revision : Release, Revision
        What is published, and which part of it this card is for.
    record : dict
        The checkpoint's provenance.
    run : RunRecord
        Its run.
    scores : dict
        Revision's name -> scores, for those that were scored.
    about : About
        What the person who publishes added.
    """

    release: Release
    revision: Revision
    record: dict[str, Any]
    run: RunRecord
    scores: dict[str, dict[str, Any] | None]
    about: About

    @property
    def ancestors(self) -> list[Ancestor]:
        """Backbones, nearest first."""
        return list(ancestors(self.record, self.run.lineage))

    @property
    def base_models(self) -> list[str]:
        """Hub ids to name as the base."""
        if self.about.base_model:
            return [self.about.base_model]
        return list(dict.fromkeys(item.name for item in self.ancestors if item.kind == "hub"))

    @property
    def merged(self) -> bool:
        """Whether the model was merged from others."""
        return len(parents(self.record)) > 1 or self.record.get("kind") == "merge"

    @property
    def sources(self) -> list[dict[str, Any]]:
        """Sections of the training data."""
        return list((self.run.settings.get("data") or {}).get("sources") or [])
