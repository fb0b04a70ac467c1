"""Scores of an experiment's runs, grouped by backbone: what the score table compares."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints import RunFolder, step_name
from reasoning_embedding.checkpoints.scores import evaluated_scores, mean_scores
from reasoning_embedding.config.reading.suggestions import did_you_mean
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json

#: Scores are shown on the scale of the field's tables.
POINTS = 100.0
#: Scores of single queries are used if their mean is the task's score, to what mteb's rounding leaves.
_ROUNDING = 1e-4
#: Settings that decide a score: runs that differ in one were not asked the same.
_DECISIVE = ("max_tokens", "query_template")


@dataclass(frozen=True)
class RunScores:
    """Scores of a run's last evaluated checkpoint, on the 0-100 scale."""

    name: str
    seed: int | None
    step: int | None
    """None: no checkpoint after step 0 was evaluated."""
    tasks: dict[str, float] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    outside: set[str] = field(default_factory=set)
    """Tasks in no mean, because their score is no quality between 0 and 1 (a silhouette)."""
    failed: dict[str, str] = field(default_factory=dict)
    queries: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """Per task and subset, query id -> score; the task's score is the mean over subsets of their means."""
    without_queries: dict[str, str] = field(default_factory=dict)
    """Per task, why there are no scores of single queries."""
    suites: dict[str, tuple[str, ...]] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    """Data of each task and the settings, which must be the same in runs that are compared."""


@dataclass(frozen=True)
class Group:
    """Runs of one backbone; they differ in their seeds."""

    name: str
    kind: str
    """``pretrain``, ``sft``, ``rlvr``, or empty for a backbone that was not grown here."""
    runs: tuple[RunScores, ...]


def read_groups(folder: Path) -> tuple[Group, ...]:
    """Read an experiment's runs, grouped by backbone in the order of the configuration.

    Parameters
    ----------
    folder : Path
        An experiment's folder. Of each run the last evaluated checkpoint counts; a run, or a task of it,
        without scores stays in its group as missing.

    Raises
    ------
    InputError
        If no runs lie there, a file is damaged, or runs were scored on different data, settings or queries.
    """
    if not folder.is_dir():
        raise InputError("no such folder", where=str(folder), todo="name an experiment's folder")
    config = read_json(folder / "config.resolved.json") if (folder / "config.resolved.json").exists() else {}
    found = _folders(folder / "runs")
    entries = {str(entry["name"]): entry for entry in config.get("runs") or []}
    names = [*entries, *(name for name in found if name not in entries)]
    if not names:
        raise InputError(
            "no runs lie here, and the table compares runs of several backbones",
            where=str(folder),
            todo="name the folder of an experiment",
        )
    kinds = {str(stage["name"]): stage["kind"] for stage in (config.get("lineage") or {}).get("stages") or []}
    members: dict[str, list[RunScores]] = {}
    for name in names:
        entry = entries.get(name, {})
        group = _backbone(entry.get("backbone"), default=name)
        members.setdefault(group, []).append(_read_run(folder / "runs" / name, name, entry.get("seed")))
    groups = tuple(Group(name, kinds.get(name, ""), tuple(runs)) for name, runs in members.items())
    _check_comparable([run for group in groups for run in group.runs], folder)
    return groups


def choose_base(groups: tuple[Group, ...], name: str | None, folder: Path) -> Group:
    """Return the group others are compared with: the one named, or else the first.

    Raises
    ------
    InputError
        If there is no such group, or no second one.
    """
    known = [group.name for group in groups]
    if len(groups) < 2:
        raise InputError(
            f"all runs have one backbone, {known[0]!r}: there is nothing to compare it with",
            where=str(folder),
            todo="add a run with another backbone to the experiment",
        )
    if name is None:
        return groups[0]
    if name not in known:
        raise InputError(
            f"no runs of a backbone {name!r}{did_you_mean(name, known)}",
            where=str(folder),
            todo=f"choose --base among {', '.join(known)}",
        )
    return groups[known.index(name)]


def _backbone(entry: Any, default: str) -> str:
    if isinstance(entry, dict):
        path = entry.get("path") or entry.get("kind") or default
        return f"{path}@{entry['revision']}" if entry.get("revision") else str(path)
    return str(entry) if entry else default


def _folders(parent: Path) -> list[str]:
    if not parent.is_dir():
        return []
    return sorted(path.name for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def _read_run(folder: Path, name: str, seed: int | None) -> RunScores:
    steps = evaluated_scores(RunFolder(folder))  # what compares backbones was asked of checkpoints
    if not steps or not max(steps):
        return RunScores(name, seed, None)
    last = max(steps)
    path = RunFolder(folder).evaluation / step_name(last) / "scores.json"
    record = steps[last]
    run = RunScores(name, seed, last)
    for entry in record.get("tasks") or []:
        task, score = entry.get("task"), entry.get("main_score")
        if not isinstance(score, (int, float)) or isinstance(score, bool) or not math.isfinite(score):
            run.failed[task] = f"its main score is {score!r}"
            continue
        run.tasks[task] = float(score) * POINTS
        if entry.get("type"):
            run.types[task] = str(entry["type"])
        run.outside.update(mean_scores([entry])["left_out"])
        if "fingerprint" in entry:
            run.identity[f"the data of task {task!r}"] = entry["fingerprint"]
        _read_queries(path.parent, run, task)
    for entry in record.get("failed") or []:
        task = str(entry.get("task"))
        run.failed[task] = str(entry.get("error") or "no reason recorded")
        if entry.get("type"):
            run.types[task] = str(entry["type"])
    suites = record.get("suites") or {}
    if not isinstance(suites, dict) or not all(isinstance(tasks, list) for tasks in suites.values()):
        raise InputError(
            "'suites' is not suite -> names of its tasks", where=str(path), todo="evaluate the model again"
        )
    run.suites.update({str(suite): tuple(map(str, tasks)) for suite, tasks in suites.items()})
    settings = record.get("settings") or {}
    run.identity.update({f"the setting {key!r}": settings[key] for key in _DECISIVE if key in settings})
    return run


def _read_queries(folder: Path, run: RunScores, task: str) -> None:
    """Take over the scores of a task's single queries, or note why they cannot stand for it."""
    path = folder / "per_query" / f"{task}.json"
    if not path.exists():
        run.without_queries[task] = "no scores of single queries"
        return
    scores = read_json(path).get("scores")
    if not isinstance(scores, dict) or not all(
        isinstance(value, (int, float)) and math.isfinite(value) for value in scores.values()
    ):
        raise InputError("not scores of single queries", where=str(path), todo="evaluate the model again")
    points = {query: float(value) * POINTS for query, value in scores.items()}
    for subsets in ({"": points}, _by_subset(points)):
        means = [sum(values.values()) / len(values) for values in subsets.values() if values]
        if means and abs(sum(means) / len(means) - run.tasks[task]) <= _ROUNDING * POINTS:
            run.queries[task] = subsets
            return
    run.without_queries[task] = "scores of single queries do not average to the task's score"


def _by_subset(points: dict[str, float]) -> dict[str, dict[str, float]]:
    """Split ids of the form ``split/subset/id``."""
    subsets: dict[str, dict[str, float]] = {}
    for query, value in points.items():
        subsets.setdefault("/".join(query.split("/")[:2]), {})[query] = value
    return subsets


def _check_comparable(runs: list[RunScores], folder: Path) -> None:
    """Refuse runs that were not asked the same questions of the same data under the same settings."""
    for what in _ordered(run.identity for run in runs):
        having = [run for run in runs if what in run.identity]
        for run in having[1:]:
            if run.identity[what] != having[0].identity[what]:
                raise _not_comparable(f"{what} differs", having[0], run, folder)
    for task in _ordered(run.queries for run in runs):
        having = [run for run in runs if task in run.queries]
        first = _ids(having[0], task)
        for run in having[1:]:
            if odd := sorted(first ^ _ids(run, task)):
                shown = json.dumps(odd[:3], ensure_ascii=False)
                raise _not_comparable(
                    f"the queries of task {task!r} differ in {len(odd)}, such as {shown}",
                    having[0],
                    run,
                    folder,
                )


def _ids(run: RunScores, task: str) -> set[str]:
    return {query for subset in run.queries[task].values() for query in subset}


def _not_comparable(what: str, a: RunScores, b: RunScores, folder: Path) -> InputError:
    return InputError(
        f"runs {a.name!r} and {b.name!r} cannot be compared: {what}",
        where=str(folder),
        todo="evaluate both again on the same tasks with the same settings",
    )


def _ordered(parts: Iterable[Iterable[str]]) -> list[str]:
    """Every name once, in the order of first appearance."""
    return list(dict.fromkeys(name for part in parts for name in part))
