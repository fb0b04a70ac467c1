"""The one store of scores: what the steps of a run scored, whoever took the score.

``rembed evaluate``, an experiment, and a run that is scored while it trains all write
``evaluation/step-000200/scores.json``: a task scored once by one of them is not scored again by another. The main
scores of a run stand in ``metrics.jsonl`` too, where versions before had them alone, and ``best.json`` names the step
that they chose. Everyone who reads scores asks here; no library is needed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import explain_disk_errors, read_json, read_json_lines, write_json

from .layout import RunFolder, step_name
from .provenance import content_hash, read_provenance

FILE = "scores.json"
#: Of scores that other settings or other weights took in the same folder: nothing that was scored is lost.
ASIDE = "scores.*.json"
#: Settings that decide a score: with others, old scores are not taken for those of another call.
DECISIVE = ("max_tokens", "pack_tokens", "query_template", "dtype", "readout", "truncate", "quantize")
#: Metrics of a task's entry, under mteb's names; the first is its main score.
METRICS = ("ndcg_at_10", "recall_at_1", "recall_at_10", "recall_at_100", "mrr_at_10")
#: Key of a task's entry that is true where it stands in a run's log alone, with no more than its main score.
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


def live_revision(step: int) -> str:
    """Return the revision of the live model at a step, whose checkpoint has no content hash yet."""
    return f"{step_name(step)}-live"


def is_live(scores: Mapping[str, Any]) -> bool:
    """Whether scores were taken of the live model, and not yet found to be those of its checkpoint."""
    return str(scores.get("revision")).endswith("-live")


def revisions_of_checkpoint(checkpoint: Path) -> list[str]:
    """Return what a checkpoint's scores may be filed under: its own revision and, if unchanged, its live model's."""
    record, content = read_provenance(checkpoint) or {}, content_hash(checkpoint)
    step = record.get("step")
    step = step if isinstance(step, int) else None
    same = step is not None and record.get("content_hash") == content
    return [revision_of(step, content), *([live_revision(step)] if same and step is not None else [])]


def same_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether two records' settings give one score; what a file of an older version lacks is not held against it."""
    before = {"readout": new.get("readout"), **old}
    return all(before.get(key) == new.get(key) for key in DECISIVE)


def set_aside(folder: Path) -> None:
    """Move a folder's scores out of the way of others, by what they were taken of and how."""
    scores = load_scores(folder)
    how = {key: (scores["settings"] or {}).get(key) for key in DECISIVE}
    digest = hashlib.sha256(json.dumps([scores["revision"], how], sort_keys=True).encode()).hexdigest()
    with explain_disk_errors(folder):
        (folder / FILE).replace(folder / ASIDE.replace("*", digest[:8]))


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
    return _load(folder / FILE)


def load_all_scores(folder: Path) -> dict[Path, dict[str, Any]]:
    """Read the scores of a folder and those that were set aside there, by file; none where it holds none."""
    return {path: _load(path) for path in (folder / FILE, *sorted(folder.glob(ASIDE))) if path.is_file()}


def _load(path: Path) -> dict[str, Any]:
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
    """Return the scores of a run's steps, in order of steps: those of the store, and what only the log holds.

    A run of an older version, or one killed early, has steps that stand in its log alone. They are left out where the
    store says otherwise of a step that both have, or has no task of theirs: two ways of scoring (other lengths, other
    prompts) do not make one curve.

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
    stored, logged = evaluated_scores(run), _scores_of_live_model(run)
    if not stored:
        return logged
    shared = [_same_scores(stored[step], logged[step]) for step in stored.keys() & logged.keys()]
    if not shared or not all(shared):
        return stored
    return dict(sorted({**logged, **stored}.items()))


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


def _same_scores(stored: Mapping[str, Any], logged: Mapping[str, Any]) -> bool:
    """Whether the store has every task of the log, with its score."""
    known = {entry["task"]: entry.get("main_score") for entry in stored["tasks"]}
    return bool(logged["tasks"]) and all(
        isinstance(score := known.get(entry["task"]), float) and abs(score - entry["main_score"]) < 1e-6
        for entry in logged["tasks"]
    )


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
    step = provenance.get("step")
    scores = scores_by_step(run).get(step) if isinstance(step, int) else None
    if scores is None:
        return None
    if any(entry.get(WHILE_TRAINING) for entry in _entries(scores)):
        return scores if provenance.get("content_hash") == content_hash(checkpoint) else None
    return scores if scores["revision"] in revisions_of_checkpoint(checkpoint) else None


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
