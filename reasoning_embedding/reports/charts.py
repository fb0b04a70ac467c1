"""Charts as data, which the PNG figures and the interactive page both draw: logs and scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .labels import QUANTITIES, SCORE
from .records import Experiment, Run, Stage
from .tables import mean_score, task_score

#: Points a curve keeps; longer logs are averaged in buckets (about a pixel each on a wide screen).
MAX_POINTS = 1000


@dataclass(frozen=True)
class Line:
    """One curve; `colour` and `style` index palette and dash patterns; a run keeps its colour in every chart."""

    name: str
    x: list[float]
    y: list[float | None]
    colour: int
    style: int


@dataclass(frozen=True)
class Panel:
    """Curves of one quantity, with an optional band (seed noise) and a level (chance)."""

    key: str
    label: str
    lines: list[Line]
    group: str = ""
    limits: tuple[float, float] | None = None
    band: tuple[float, float] | None = None
    band_label: str = ""
    chance: float | None = None


@dataclass(frozen=True)
class LineChart:
    """Panels over one horizontal axis; the page shows one at a time."""

    key: str
    title: str
    x_label: str
    panels: list[Panel]
    note: str = ""
    log: bool = False
    """Whether steps start out on a logarithmic axis (of 1 + step)."""
    ticks: list[str] | None = None
    """Names of x = 0, 1, 2, ... where x is not a number."""


@dataclass(frozen=True)
class Bars:
    """Last scores of models by task, with the score at step 0 where there was one."""

    label: str
    tasks: list[str]
    models: list[str]
    last: list[list[float | None]]
    first: list[list[float | None]]
    looks: list[tuple[int, int]]
    """Colour and style of each model; the colours of baselines are negative."""


def thin(
    x: list[float], y: list[float | None], points: int = MAX_POINTS
) -> tuple[list[float], list[float | None]]:
    """At most `points` points of a curve: means over equal buckets, ends kept as they are."""
    if len(x) <= points:
        return x, y
    new_x, new_y = [x[0]], [y[0]]
    size = (len(x) - 2) / (points - 2)
    for index in range(points - 2):
        part = slice(1 + round(index * size), 1 + round((index + 1) * size))
        known = [value for value in y[part] if value is not None]
        new_x.append(sum(x[part]) / len(x[part]))
        new_y.append(sum(known) / len(known) if known else None)
    return [*new_x, x[-1]], [*new_y, y[-1]]


def log_chart(
    key: str, title: str, logs: Sequence[Run | Stage], looks: Mapping[str, tuple[int, int]] | None = None
) -> LineChart | None:
    """Training logs: one panel for each known quantity that somebody logged; without looks each has its colour."""
    looks = looks or {entity.name: (place, 0) for place, entity in enumerate(logs)}
    panels = []
    for quantity, label in QUANTITIES.items():
        lines = []
        for entity in logs:
            if quantity == "loss" and isinstance(entity, Stage) and entity.kind == "rlvr":
                continue  # a policy-gradient loss is no likelihood: it shares no axis with the others
            points = [
                (row["step"], value)
                for row in entity.metrics
                if (value := _finite(row.get(quantity))) is not None
            ]
            if points:
                x, y = thin([float(step) for step, _ in points], [value for _, value in points])
                lines.append(Line(entity.name, x, y, *looks[entity.name]))
        if lines:
            panels.append(Panel(quantity, label, lines))
    return LineChart(key, title, "step", panels) if panels else None


def score_bars(experiment: Experiment) -> Bars | None:
    """Scores of runs and baselines by task, the mean last when there are several tasks."""
    tasks = experiment.tasks
    looks = experiment.looks
    entries = [(run.name, run.first, run.last, looks[run.name]) for run in experiment.runs if run.scores]
    entries += [
        (name, None, scores, (-1 - i, 0)) for i, (name, scores) in enumerate(experiment.baselines.items())
    ]
    if not tasks or not entries:
        return None

    def values(scores: Any) -> list[float | None]:
        return [task_score(scores, task) for task in tasks] + (
            [mean_score(scores, tasks)] if len(tasks) > 1 else []
        )

    return Bars(
        label=SCORE,
        tasks=[*tasks, *(["mean"] if len(tasks) > 1 else [])],
        models=[name for name, *_ in entries],
        last=[values(last) for _, _, last, _ in entries],
        first=[values(first) for _, first, _, _ in entries],
        looks=[look for *_, look in entries],
    )


def score_curves(experiment: Experiment) -> LineChart | None:
    """Scores by step; None unless some run was evaluated at more than two checkpoints."""
    if all(len(run.scores) <= 2 for run in experiment.runs):
        return None
    panels, looks = [], experiment.looks
    for task in experiment.tasks:
        lines = []
        for run in experiment.runs:
            steps = sorted(run.scores)
            lines.append(
                Line(
                    run.name,
                    [float(s) for s in steps],
                    [task_score(run.scores[s], task) for s in steps],
                    *looks[run.name],
                )
            )
        panels.append(Panel(task, f"{SCORE}, {task}", lines))
    return LineChart("score-curves", f"{SCORE} by step", "training step", panels, log=True)


def _finite(value: Any) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None
