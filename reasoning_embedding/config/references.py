"""The grammar of model references: what a configuration or a command line may call a model.

=============================  ==========================================================================
``FOLDER``                     a model's own folder
``RUN@STEP``                   a checkpoint of the run in that folder; STEP is a number, ``first``, ``last``
                               or ``best``
``OWNER/NAME@REVISION``        a model of the Hub; without ``@REVISION`` its main branch
``run:NAME@STEP``              the same of a run of the experiment at hand, or beside it; without ``@STEP`` the last
``lineage:STAGE@STEP``         a step that a stage of the experiment's lineage kept; without ``@STEP`` what it grew
=============================  ==========================================================================

``RUN``, ``run:NAME`` and ``lineage:STAGE`` without a step also name a series of models where a verb follows one.
What a reference points to is found by :mod:`reasoning_embedding.checkpoints.references`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Reference:
    """A model reference, taken apart.

    Attributes
    ----------
    text : str
        As written.
    kind : {"path", "run", "lineage"}
        ``path``: a folder or a Hub id; only the disk can tell which.
    name : str
        The folder or Hub id, the run or the stage.
    at : str or None
        What stands after the last ``@``: a step, or a revision of the Hub.
    """

    text: str
    kind: Literal["path", "run", "lineage"]
    name: str
    at: str | None


def parse(text: str) -> Reference:
    """Take a reference apart; nothing is looked up."""
    scheme, _, rest = text.partition(":")
    kind = scheme if scheme in ("run", "lineage") else "path"
    name, separator, at = (text if kind == "path" else rest).rpartition("@")
    return Reference(text, kind, name, at) if separator else Reference(text, kind, at, None)


def is_hub_id(text: str) -> bool:
    """Whether a text has the form of a Hub id, ``OWNER/NAME``."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text) is not None
