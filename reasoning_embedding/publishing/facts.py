"""Everything a model card is written from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .record import Ancestor, RunRecord, ancestors, parents
from .release import Release, Revision, check_repo_name


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
