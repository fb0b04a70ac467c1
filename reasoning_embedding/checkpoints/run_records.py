"""What a run folder says of its run: settings and manifest, held to their sums."""

from __future__ import annotations

from typing import Any

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import hash_file, read_json

from .layout import RunFolder

_TODO = "resume the run with its configuration and --resume, which writes the file anew; or restore it"


def read_settings(run: RunFolder) -> dict[str, Any]:
    """Return the settings a run was trained with, every default filled in; empty where there are none.

    Raises
    ------
    InputError
        If the file is damaged, or is not the one that the manifest names.
    """
    settings = read_json(run.config_json, default={}, todo=_TODO)
    wanted = read_manifest(run).get("settings_sha256") if settings else None
    if wanted is not None and hash_file(run.config_json) != wanted:
        raise InputError("the file was changed after it was written", where=str(run.config_json), todo=_TODO)
    return settings


def read_manifest(run: RunFolder) -> dict[str, Any]:
    """Return a run's versions, seeds, data fingerprint and hardware; empty where there is no manifest.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    return read_json(run.manifest, default={}, todo=_TODO)
