"""The one store of scores: what the steps of a run scored, whoever took the score.

``rembed evaluate`` and an experiment score checkpoints and write ``evaluation/step-000200/scores.json``. A run with
an ``evaluation`` section scores its live model while it trains; these scores stand in ``metrics.jsonl``, and
``best.json`` names the step that they chose. Everyone who reads scores asks here and sees both; no library is needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json, read_json_lines, write_json

from .layout import RunFolder, step_name
from .provenance import content_hash, read_provenance

FILE = "scores.json"
#: Metrics of a task's entry, under mteb's names; the first is its main score.
METRICS = ("ndcg_at_10", "recall_at_1", "recall_at_10", "recall_at_100", "mrr_at_10")
#: Key of a task's entry that is true where the live model was scored, not the checkpoint it became.
WHILE_TRAINING = "while_training"
#: Name of the mean over tasks among the scores that a run logs.
MEAN = "mean"
_TODO = "remove it and evaluate again"


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
        and, under its ``suites``, of each benchmark's), ``settings`` and ``versions``. What the file of an
        older version lacks is None or empty.

    Raises
    ------
    InputError
        When the folder holds no scores, a file that is not one of scores, or an entry that names no task.
    """
    path = folder / FILE
    try:
        scores = read_json(path, todo=_TODO)
    except FileNotFoundError as error:
        raise InputError("no scores here", where=str(path), todo="evaluate the model first") from error
    if not isinstance(scores.get("tasks"), list):
        raise InputError("not a file of scores", where=str(path), todo=_TODO)
    scores = {**dict.fromkeys(("model", "revision", "step")), "failed": [], "settings": {}, **scores}
    if any("task" not in entry for entry in _entries(scores)):
        raise InputError("a task without a name", where=str(path), todo="evaluate the model again")
    return scores


def scores_by_step(run: RunFolder) -> dict[int, dict[str, Any]]:
    """Return the scores of a run's steps, in order of steps: of its checkpoints, or else those taken while it trained.

    Where checkpoints were evaluated, the scores of the live model are left out: two ways of scoring (other tasks and
    lengths, adapters that are not merged yet) do not make one curve.

    Returns
    -------
    dict
        Step -> what :func:`load_scores` returns; a run that was never scored has no step. A score of the live model is
        an entry of ``tasks`` with ``task``, ``main_score`` and :data:`WHILE_TRAINING`.

    Raises
    ------
    InputError
        If a file of scores is damaged, or an entry names no task.
    """
    return evaluated_scores(run) or _scores_of_live_model(run)


def evaluated_scores(run: RunFolder) -> dict[int, dict[str, Any]]:
    """Return the scores of a run's evaluated checkpoints, in order of steps; see :func:`scores_by_step`."""
    folders = run.evaluation.iterdir() if run.evaluation.is_dir() else ()
    # Baselines and merges lie in folders of other names.
    found = {
        int(match[1]): folder
        for folder in folders
        if (match := re.fullmatch(r"step-(\d+)", folder.name)) and (folder / FILE).is_file()
    }
    return {step: load_scores(found[step]) for step in sorted(found)}


def _scores_of_live_model(run: RunFolder) -> dict[int, dict[str, Any]]:
    """What a run logged, in the form of evaluated scores."""
    logged = {
        step: {name: score for name, score in scores.items() if ":" not in name and name != MEAN}
        for step, scores in scores_while_training(run).items()
    }
    tasks = dict.fromkeys(name for scores in logged.values() for name in scores)
    return {
        step: {
            "model": run.path.resolve().name,
            "revision": None,
            "step": step,
            "tasks": [
                {"task": task, "main_score": scores[task], WHILE_TRAINING: True}
                for task in tasks
                if task in scores
            ],
            "failed": [
                {"task": task, "error": "it failed while the run trained", WHILE_TRAINING: True}
                for task in tasks
                if task not in scores
            ],
            "settings": {},
        }
        for step, scores in logged.items()
    }


def scores_of_checkpoint(run: RunFolder, checkpoint: Path) -> dict[str, Any] | None:
    """Return the scores of a checkpoint as it is now, or None where it has none.

    Parameters
    ----------
    run : RunFolder
        Its run.
    checkpoint : Path
        Its folder. Scores that were taken of other weights are not its own.

    Raises
    ------
    InputError
        As :func:`scores_by_step`.
    """
    provenance = read_provenance(checkpoint) or {}
    step, content = provenance.get("step"), content_hash(checkpoint)
    scores = scores_by_step(run).get(step) if isinstance(step, int) else None
    if scores is None:
        return None
    if any(entry.get(WHILE_TRAINING) for entry in _entries(scores)):
        return scores if provenance.get("content_hash") == content else None
    return scores if scores["revision"] == revision_of(step, content) else None


def scores_while_training(run: RunFolder) -> dict[int, dict[str, float]]:
    """Return what a run logged of its live model: step -> ``TASK``, ``mean`` and, if it selects, ``TASK:METRIC``.

    Of a step that was trained twice (a resumed run) the later scores count.
    """
    found = {
        record["step"]: record["evaluation"]
        for record in read_json_lines(run.metrics)
        if isinstance(record.get("step"), int) and isinstance(record.get("evaluation"), dict)
    }
    return dict(sorted(found.items()))


def write_best(run: RunFolder, step: int, score: float, select: str) -> None:
    """Write which step scored best while training; its checkpoint must be on disk."""
    write_json(run.best, {"step": step, "score": score, "select": select}, summed=True)


def read_best(run: RunFolder) -> dict[str, Any] | None:
    """Return ``step``, ``score`` and ``select`` of the best step; None for a run that was not scored while training.

    Raises
    ------
    InputError
        If the file does not name a step.
    """
    if not run.best.exists():
        return None
    best = read_json(run.best, todo="name a step")
    if not isinstance(best.get("step"), int):
        raise InputError("the file does not name a step", where=str(run.best), todo="name a step")
    return best


def mean_scores(
    tasks: Iterable[Mapping[str, Any]], failed: Iterable[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return the means of a model's main scores, as mteb's tables have them.

    Parameters
    ----------
    tasks : iterable of mapping
        Entries with ``task``, ``main_score`` and ``type``; one without a type counts as retrieval.
    failed : iterable of mapping
        Entries of tasks without a score.

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
    for entry in failed:
        missing.append(entry["task"])
        types.setdefault(entry.get("type", "Retrieval"), []).append(None)
    complete = not missing
    means = {kind: _mean(scores) for kind, scores in types.items()}
    return {
        "by_task": _mean([score for scores in types.values() for score in scores]) if complete else None,
        "by_type": _mean(list(means.values())) if complete else None,
        "types": means,
        "missing": missing,
        "left_out": left_out,
    }


def _mean(scores: list[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known and len(known) == len(scores) else None


def _entries(scores: dict[str, Any]) -> list[dict[str, Any]]:
    return [*scores["tasks"], *scores["failed"]]
