"""Means over tasks, as mteb's tables have them: by task and by type; a failed task leaves neither."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any


def mean_scores(
    tasks: Iterable[Mapping[str, Any]], failed: Iterable[Mapping[str, Any] | str] = ()
) -> dict[str, Any]:
    """Return the means of a model's main scores.

    Parameters
    ----------
    tasks : iterable of mapping
        Entries with ``task``, ``main_score`` and ``type``; one without a type counts as retrieval.
    failed : iterable of mapping or str
        Entries, or names, of tasks without a score.

    Returns
    -------
    dict
        ``by_task``: the mean over tasks. ``by_type``: the mean over types of the mean over a type's tasks.
        Both are None where a task is missing or there is none. ``types``: type -> its mean, None where one
        of its tasks is missing. ``missing``: names of failed tasks and of scores that are not finite.
        ``left_out``: tasks whose main score is no quality between 0 and 1 (a silhouette) and is in no mean.

    Notes
    -----
    A mean over the tasks that happened to work would favour the model that failed on the hard ones; mteb's
    tables too leave the cell empty.
    """
    missing: list[str] = []
    left_out: list[str] = []
    types: dict[str, list[float | None]] = {}
    for entry in tasks:
        if str(entry.get("main_metric", "")).startswith("silhouette") or "silhouette_true" in entry:
            left_out.append(entry["task"])
            continue
        score: float | None = entry["main_score"]
        if score is None or not math.isfinite(score):
            missing.append(entry["task"])
            score = None
        types.setdefault(entry.get("type", "Retrieval"), []).append(score)
    for task in failed:
        if isinstance(task, str):
            missing.append(task)  # its type is not known
            continue
        missing.append(task["task"])
        types.setdefault(task.get("type", "Retrieval"), []).append(None)
    whole = not missing
    means = {kind: _mean(scores) for kind, scores in types.items()}
    return {
        "by_task": _mean([score for scores in types.values() for score in scores]) if whole else None,
        "by_type": _mean(list(means.values())) if whole else None,
        "types": means,
        "missing": missing,
        "left_out": left_out,
    }


def _mean(scores: list[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known and len(known) == len(scores) else None
