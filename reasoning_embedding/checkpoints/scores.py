"""The scores of one model: ``scores.json``, which needs no library to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints import step_name
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json

FILE = "scores.json"
#: Metrics of a task's entry, under mteb's names; the first is its main score.
METRICS = ("ndcg_at_10", "recall_at_1", "recall_at_10", "recall_at_100", "mrr_at_10")


def revision_of(step: int | None, content_hash: str) -> str:
    """Return the revision of a checkpoint: ``step-000200-`` and 12 digits of its content hash.

    Changed weights have another hash, so scores of the old ones are never taken for theirs.
    """
    short = content_hash[:12]
    return short if step is None else f"{step_name(step)}-{short}"


def load_scores(folder: Path) -> dict[str, Any]:
    """Read the scores that ``evaluate`` left in a folder.

    Returns
    -------
    dict
        ``model``, ``revision``, ``step``, ``tasks`` (an entry a scored task), ``failed`` (an entry a
        failed task, with its ``error``), ``suites`` (benchmark -> names of its tasks), ``means`` (of all tasks
        and, under its ``suites``, of each benchmark's), ``settings`` and ``versions``.

    Raises
    ------
    InputError
        When the folder holds no scores, or a file that is not one of scores.
    """
    path = folder / FILE
    try:
        scores = read_json(path, todo="remove it and evaluate again")
    except FileNotFoundError as error:
        raise InputError("no scores here", where=str(path), todo="evaluate the model first") from error
    if not {"model", "revision", "tasks", "failed"} <= scores.keys():
        raise InputError("not a file of scores", where=str(path), todo="remove it and evaluate again")
    return scores
