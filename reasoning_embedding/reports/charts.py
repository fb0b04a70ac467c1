"""Charts as data, which pages (SVG) and PNG figures both draw: logs, scores, points, parallel coordinates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .labels import QUANTITIES, SCORE, number
from .names import run_title
from .records import Experiment, GrownBackbone, Run, finite
from .tables import mean_score, sequence_entries, sequence_tasks, task_score

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
    """Curves of one quantity, with an optional band (seed noise) and a level (row shuffle)."""

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
    """Panels over one horizontal axis."""

    key: str
    title: str
    x_label: str
    panels: list[Panel]
    note: str = ""
    log: bool = False
    """Whether steps stand on a logarithmic axis (of 1 + step)."""
    ticks: list[str] | None = None
    """Names of x = 0, 1, 2, ... where x is not a number."""
    first: tuple[str, ...] = ()
    """Keys of the panels that are asked for most; none: all."""

    @property
    def shown(self) -> list[Panel]:
        """The panels asked for most, in their order; the only ones of a PNG, and the first of a page."""
        return [panel for panel in self.panels if panel.key in self.first] or (
            self.panels[:1] if self.first else self.panels
        )


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
    note: str = "A short line across a bar is the score at step 0."


@dataclass(frozen=True)
class Effect:
    """One point with its interval, and the levels it is held against by name."""

    name: str
    value: float
    interval: tuple[float, float] | None
    look: int
    levels: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EffectPanel:
    """Effects in one quantity, a row each.

    Parameters
    ----------
    zero : str
        What 0 means, such as “no difference”; empty where it means nothing.
    band : tuple of float or None
        A range behind all rows, and what it is.
    signed : bool
        Whether values are differences.
    """

    label: str
    rows: list[Effect]
    zero: str = ""
    band: tuple[float, float] | None = None
    band_label: str = ""
    signed: bool = True


@dataclass(frozen=True)
class EffectChart:
    """What a page says first, as points with intervals: a panel a quantity."""

    title: str
    panels: list[EffectPanel]
    note: str


@dataclass(frozen=True)
class CoordinateAxis:
    """An axis of :class:`Coordinates`: its name, and some of its values by their places in [0, 1]."""

    label: str
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class CoordinateLine:
    """A run as a line through all axes: its place in [0, 1] and its value as text on each."""

    name: str
    places: list[float]
    texts: list[str]


@dataclass(frozen=True)
class Coordinates:
    """Parallel coordinates: an axis a quantity, a line a run, the best last."""

    axes: list[CoordinateAxis]
    lines: list[CoordinateLine]


@dataclass(frozen=True)
class PointPlot:
    """One model's projection to the plane.

    Parameters
    ----------
    heading : str
        Over the whole figure.
    title, note : str
        Over this panel.
    families : tuple of str
        Names.
    points : tuple of tuple of (float, float)
        Of each family, its texts in the order of the chunks; t-SNE's axes have no unit.
    """

    heading: str
    title: str
    note: str
    families: tuple[str, ...]
    points: tuple[tuple[tuple[float, float], ...], ...]


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
    key: str,
    title: str,
    logs: Sequence[Run | GrownBackbone],
    first: tuple[str, ...],
    looks: Mapping[str, tuple[int, int]] | None = None,
    titles: Callable[[str], str] = str,
) -> LineChart | None:
    """Training logs: a panel for each known quantity that somebody logged; without looks each log has its colour.

    `titles` gives what a reader calls a log.
    """
    looks = looks or {entity.name: (place, 0) for place, entity in enumerate(logs)}
    panels = []
    for quantity, label in QUANTITIES.items():
        lines = []
        for entity in logs:
            if quantity == "loss" and isinstance(entity, GrownBackbone) and entity.kind == "rlvr":
                continue  # a policy-gradient loss is no likelihood: it shares no axis with the others
            points = [
                (row["step"], value)
                for row in entity.metrics
                if (value := finite(row.get(quantity))) is not None
            ]
            if points:
                x, y = thin([float(step) for step, _ in points], [value for _, value in points])
                lines.append(Line(titles(entity.name), x, y, *looks[entity.name]))
        if lines:
            panels.append(Panel(quantity, label, lines))
    return LineChart(key, title, "step", panels, first=first) if panels else None


def score_bars(experiment: Experiment) -> Bars | None:
    """Scores of runs and baselines by task, the mean last when there are several tasks."""
    tasks = experiment.tasks
    looks = experiment.looks
    entries = [
        (run_title(experiment, run.name), run.first, run.last, looks[run.name])
        for run in experiment.runs
        if run.scores
    ]
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
                    run_title(experiment, run.name),
                    [float(s) for s in steps],
                    [task_score(run.scores[s], task) for s in steps],
                    *looks[run.name],
                )
            )
        panels.append(Panel(task, f"{SCORE}, {task}", lines))
    return LineChart("score-curves", f"{SCORE} by step", "training step", panels, log=True)


def sequence_plots(experiment: Experiment) -> dict[str, list[PointPlot]]:
    """Panels of the figure of each task, in the order of its table."""
    return {
        task: [_plot(task, name, note, entry) for name, note, entry in sequence_entries(experiment, task)]
        for task in sequence_tasks(experiment)
    }


def _plot(task: str, name: str, note: str, entry: dict[str, Any]) -> PointPlot:
    projection = entry["tsne"]
    labelled = list(zip(projection["labels"], projection["points"], strict=True))
    families = tuple(projection["families"])
    return PointPlot(
        heading=f"t-SNE of {task}: {entry['texts']} texts, perplexity {projection['perplexity']:.3g}",
        title=f"{name} · {note}",
        note=f"silhouette {number(entry['silhouette_true'])}, ARI {number(entry['ari'], 2)}",
        families=families,
        points=tuple(
            tuple((float(x), float(y)) for label, (x, y) in labelled if label == index)
            for index in range(len(families))
        ),
    )
