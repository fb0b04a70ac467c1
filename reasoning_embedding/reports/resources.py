"""Files of the package that reports are made with: style and scripts of the pages, and published numbers."""

from __future__ import annotations

import importlib.util
import json
from importlib import resources
from typing import Any

from reasoning_embedding.errors import SetupError

_FOLDER = resources.files("reasoning_embedding.reports")


def page_part(name: str) -> str:
    """Return a file of ``template/``: part of every page."""
    return (_FOLDER / "template" / name).read_text(encoding="utf-8")


def published(name: str) -> dict[str, Any]:
    """Return published numbers, with their source, to stand beside a user's own.

    Parameters
    ----------
    name : {"scores", "hrsa", "number-sequences"}
        Which.
    """
    return json.loads((_FOLDER / "published" / f"{name}.json").read_text(encoding="utf-8"))


def need(library: str, what: str) -> None:
    """Check that a library of the ``report`` extra is installed.

    Raises
    ------
    SetupError
        If it is not.
    """
    if importlib.util.find_spec(library) is None:
        raise SetupError(f"{what} needs {library}", todo='pip install "reasoning-embedding[report]"')
