"""What was verified and uploaded so far, so that an interrupted upload goes on. Holds no secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import write_json

FILE = "ledger.json"


class Ledger:
    """The record beside the exported folders; every change is written at once.

    Parameters
    ----------
    folder : Path
        A release's folder.

    Raises
    ------
    InputError
        If the file there is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._revisions: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            try:
                self._revisions = dict(json.loads(self._path.read_text(encoding="utf-8"))["revisions"])
            except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                raise InputError(
                    "this ledger is damaged",
                    where=str(self._path),
                    todo="delete it: what is complete on the Hub is recognised by its files",
                ) from error

    def verified(self, name: str, fingerprint: str) -> dict[str, float] | None:
        """Differences measured for a revision of this very fingerprint, or None."""
        entry = self._revisions.get(name, {}).get("verified") or {}
        return entry.get("differences") if entry.get("fingerprint") == fingerprint else None

    def set_verified(self, name: str, fingerprint: str, differences: dict[str, float]) -> None:
        """Remember that a revision gave the trainer's embeddings."""
        self._change(name, verified={"fingerprint": fingerprint, "differences": differences})

    def commits(self) -> set[str]:
        """Commits that were made from this folder."""
        return {commit for entry in self._revisions.values() for commit in entry.get("commits", [])}

    def add_commit(self, name: str, commit: str) -> None:
        """Remember a commit of a revision."""
        commits = self._revisions.get(name, {}).get("commits", [])
        self._change(name, commits=[*(item for item in commits if item != commit), commit])

    def _change(self, name: str, **values: Any) -> None:
        self._revisions[name] = {**self._revisions.get(name, {}), **values}
        write_json(self._path, {"revisions": self._revisions})
