"""Two models on the same queries: what each gained and lost, and how sure the mean difference is."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reasoning_embedding.checkpoints.scores import load_scores, mean_scores
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_write
from reasoning_embedding.hrsa.uncertainty.resampling import bootstrap_means

from .grid import Cell, Grid, named_columns, to_text
from .labels import brackets, number, signed
from .reading import read_query_scores, scores_of_record

#: Level of the intervals.
LEVEL = 0.95
#: Queries that are shown on the terminal from each end of a task.
_SHOWN = 3
#: Below it a percentile interval is too short to be trusted; Efron and Tibshirani 1993, chapter 13.
_FEW = 30
#: Scores of single queries come rounded to five digits.
_SAME = 1e-5
#: Characters of a query that a line of the terminal shows.
_TEXT = 90


@dataclass(frozen=True)
class QueryPair:
    """One query: its text where it is known, and what each model scored on it."""

    query: str
    text: str
    a: float
    b: float

    @property
    def difference(self) -> float:
        """B minus A."""
        return self.b - self.a


@dataclass(frozen=True)
class TaskPair:
    """One task, or the mean over tasks.

    Attributes
    ----------
    task, metric : str
        What was scored, and by what.
    a, b : float
        Scores of the two models.
    interval : (float, float) or None
        Of the difference B - A: percentiles of a paired bootstrap over queries.
    reason : str
        Why there is no interval, or why it is not to be trusted; else empty.
    queries : tuple of QueryPair
        Largest gain of B first; empty where single queries have no scores.
    """

    task: str
    metric: str
    a: float
    b: float
    interval: tuple[float, float] | None
    reason: str
    queries: tuple[QueryPair, ...] = ()

    @property
    def difference(self) -> float:
        """B minus A."""
        return self.b - self.a

    @property
    def counts(self) -> tuple[int, int, int]:
        """Queries that B wins, that are equal, and that B loses."""
        differences = [pair.difference for pair in self.queries]
        wins, losses = sum(d > _SAME for d in differences), sum(d < -_SAME for d in differences)
        return wins, len(differences) - wins - losses, losses


@dataclass(frozen=True)
class SideBySide:
    """Two models on the tasks that both were scored on.

    Attributes
    ----------
    names : (str, str)
        What they are called.
    settings : (dict, dict)
        How each was asked; see ``settings`` of a file of scores.
    tasks : tuple of TaskPair
        In the order of the first model's scores, the mean over them last where there are several.
    missing : tuple of str
        Tasks that only one was scored on, or that cannot be compared, and why.
    """

    names: tuple[str, str]
    settings: tuple[dict[str, Any], dict[str, Any]]
    tasks: tuple[TaskPair, ...]
    missing: tuple[str, ...]


def side_by_side(
    names: Sequence[str], folders: Sequence[Path], texts: Mapping[str, Mapping[str, str]] | None = None
) -> SideBySide:
    """Compare two models that were scored.

    Parameters
    ----------
    names : sequence of str
        What the two are called.
    folders : sequence of Path
        Where their scores lie.
    texts : mapping, optional
        Task -> query id -> text.

    Returns
    -------
    SideBySide
        With intervals from 5000 resamples of queries, the models resampled together, and tasks of the same queries
        with the same draws (:func:`~reasoning_embedding.hrsa.uncertainty.resampling.bootstrap_means`).

    Raises
    ------
    InputError
        If a folder holds no scores, or the two share no task.
    """
    records = [load_scores(folder) for folder in folders]
    sides = [{entry["task"]: entry for entry in record["tasks"]} for record in records]
    scores = [scores_of_record(record, folder) for record, folder in zip(records, folders, strict=True)]
    missing = [
        f"{task}: only {names[side]} has a score"
        for side, other in ((0, 1), (1, 0))
        for task in sides[side]
        if task not in sides[other]
    ]
    found: list[tuple[TaskPair, np.ndarray | None, str]] = []
    for task, entry in sides[0].items():
        other = sides[1].get(task)
        if other is None:
            continue
        if entry.get("fingerprint") != other.get("fingerprint"):
            missing.append(f"{task}: the two were scored on different data")
            continue
        single = [read_query_scores(side, task) for side in scores]
        found.append(_compare(entry, other, single, (texts or {}).get(task, {})))
    if not found:
        raise InputError(
            "no task was scored with both models", where=f"{folders[0]} and {folders[1]}", todo="score both"
        )
    tasks = _with_intervals(found)
    quality = [pair for pair in tasks if not mean_scores([sides[0][pair.task]])["left_out"]]
    if len(quality) > 1:
        tasks.append(_mean(quality, found))
    how = [dict(record["settings"] or {}) for record in records]
    return SideBySide((names[0], names[1]), (how[0], how[1]), tuple(tasks), tuple(missing))


def _compare(
    a: dict[str, Any],
    b: dict[str, Any],
    single: list[dict[str, float] | None],
    texts: Mapping[str, str],
) -> tuple[TaskPair, np.ndarray | None, str]:
    """Pair a task's queries; their differences come in the order of their ids."""
    task, metric = str(a["task"]), str(a.get("main_metric", "main score"))
    pair = TaskPair(task, metric, float(a["main_score"]), float(b["main_score"]), None, "")
    first, second = single
    if first is None or second is None or first.keys() != second.keys() or not first:
        return _without(pair, "no scores of single queries")
    ids = sorted(first)
    means = [float(np.mean([side[query] for query in ids])) for side in (first, second)]
    if max(abs(means[0] - pair.a), abs(means[1] - pair.b)) > 1e-3:
        return _without(pair, "scores of single queries do not average to the task's score")
    rows = [QueryPair(query, texts.get(query, ""), first[query], second[query]) for query in ids]
    differences = np.array([row.difference for row in rows])
    rows.sort(key=lambda row: -row.difference)
    reason = f"only {len(ids)} queries: the interval is too short" if len(ids) < _FEW else ""
    pair = TaskPair(task, metric, pair.a, pair.b, None, reason, tuple(rows))
    return pair, differences, "\n".join(ids)


def _without(pair: TaskPair, reason: str) -> tuple[TaskPair, None, str]:
    return TaskPair(pair.task, pair.metric, pair.a, pair.b, None, reason), None, ""


def _with_intervals(found: list[tuple[TaskPair, np.ndarray | None, str]]) -> list[TaskPair]:
    draws = _draws(found)
    return [
        TaskPair(p.task, p.metric, p.a, p.b, _percentiles(draws[p.task]), p.reason, p.queries)
        if p.task in draws
        else p
        for p, _, _ in found
    ]


def _draws(found: Sequence[tuple[TaskPair, np.ndarray | None, str]]) -> dict[str, np.ndarray]:
    """Replicates of each task's mean difference."""
    known = [(pair.task, values, key) for pair, values, key in found if values is not None]
    if not known:
        return {}
    samples = bootstrap_means([values for _, values, _ in known], [key for _, _, key in known])
    return {task: samples[:, index] for index, (task, _, _) in enumerate(known)}


def _mean(pairs: Sequence[TaskPair], found: Sequence[tuple[TaskPair, np.ndarray | None, str]]) -> TaskPair:
    draws = _draws(found)
    a, b = (float(np.mean([getattr(pair, side) for pair in pairs])) for side in ("a", "b"))
    if lacking := [pair.task for pair in pairs if pair.task not in draws]:
        return TaskPair(
            "mean over tasks", "", a, b, None, f"{', '.join(lacking)}: no scores of single queries"
        )
    samples = np.mean([draws[pair.task] for pair in pairs], axis=0)
    return TaskPair("mean over tasks", "", a, b, _percentiles(samples), "")


def _percentiles(samples: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def to_terminal(found: SideBySide, width: int) -> str:
    """Return the table of tasks, and of each the queries with the largest gains and losses."""
    a, b = found.names
    rows = []
    for pair in found.tasks:
        wins, ties, losses = pair.counts
        rows.append(
            (
                Cell(pair.task, f"({pair.metric})" if pair.metric else ""),
                Cell(number(pair.a, 4)),
                Cell(number(pair.b, 4)),
                Cell(signed(pair.difference, 4)),
                Cell(brackets(pair.interval, 4, write=signed) if pair.interval else "–"),
                Cell(f"{wins} / {ties} / {losses}" if pair.queries else "–"),
            )
        )
    caption = (
        f"A: {a}. B: {b}. B - A with its {LEVEL:.0%} interval: percentiles of a paired bootstrap over queries. Wins, "
        "ties and losses of B. Not corrected for the number of tasks."
    )
    columns = named_columns("task", "A", "B", "B - A", f"{LEVEL:.0%}", "B wins / ties / loses")
    parts = [to_text(Grid("side-by-side", "Two models", caption, columns, tuple(rows)), width), caption]
    notes = [*(f"{pair.task}: {pair.reason}" for pair in found.tasks if pair.reason), *found.missing]
    parts += ["\n".join(f"- {note}" for note in notes)] if notes else []
    for pair in found.tasks:
        gains = [row for row in pair.queries[:_SHOWN] if row.difference > _SAME]
        losses = [row for row in pair.queries[-_SHOWN:] if row.difference < -_SAME]
        if gains or losses:
            lines = [f"{pair.task}: what B gains and loses most"]
            lines += [
                f"  {signed(row.difference, 3)}  {row.query}  {_short(row.text)}" for row in (*gains, *losses)
            ]
            parts.append("\n".join(lines))
    return "\n\n".join(parts)


def write_comparison(folder: Path, found: SideBySide) -> list[Path]:
    """Write ``comparison.json`` (tasks and how both were asked) and ``comparison.csv`` (a line a query).

    Raises
    ------
    SetupError
        If the folder cannot be written.
    """
    tasks = []
    for pair in found.tasks:
        wins, ties, losses = pair.counts
        record = {key: value for key, value in asdict(pair).items() if key != "queries"}
        tasks.append(record | {"difference": pair.difference, "wins": wins, "ties": ties, "losses": losses})
    whole = {
        "a": found.names[0],
        "b": found.names[1],
        "settings": {"a": found.settings[0], "b": found.settings[1]},
        "level": LEVEL,
        "tasks": tasks,
        "missing": list(found.missing),
    }
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("task", "query", "a", "b", "difference", "text"))
    for pair in found.tasks:
        for row in pair.queries:
            writer.writerow((pair.task, row.query, row.a, row.b, row.difference, row.text))
    paths = [folder / "comparison.json", folder / "comparison.csv"]
    atomic_write(paths[0], json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    atomic_write(paths[1], table.getvalue())
    return paths


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…"
