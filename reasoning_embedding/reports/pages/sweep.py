"""The page of a sweep: parallel coordinates, the best run, seeds together with their interval, every run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints.layout import SweepFolder
from reasoning_embedding.files import atomic_folder
from reasoning_embedding.hrsa.uncertainty.equivalence import ALPHA
from reasoning_embedding.progress import Report
from reasoning_embedding.reports.charts import CoordinateAxis, CoordinateLine, Coordinates
from reasoning_embedding.reports.grid import (
    Cell,
    Grid,
    named_columns,
    terminal_width,
    to_html,
    to_markdown,
    to_text,
)
from reasoning_embedding.reports.labels import signed
from reasoning_embedding.reports.reading import read_sweep
from reasoning_embedding.reports.records import SEED, SweepRecord, half_width
from reasoning_embedding.reports.shell import paragraphs, require_room, write_page
from reasoning_embedding.reports.svg import parallel_coordinates
from reasoning_embedding.secrets import written


def build_sweep(folder: Path, report: Report) -> Path:
    """Write ``report/index.html`` and ``report/table.md`` of a sweep, all or nothing.

    Raises
    ------
    InputError
        If no sweep lies there, or a file of it is damaged.
    SetupError
        If the folder cannot be written.
    """
    record = read_sweep(folder)
    report(f"report: {len(record.measured)} of {len(record.outcomes)} runs are finished and measured")
    tables = {table.key: table for table in (point_table(record), run_table(record)) if table.rows}
    chart = coordinates(record)
    states = [outcome.state for outcome in record.outcomes]
    counts = "".join(f", {states.count(state)} {state}" for state in sorted(set(states)))
    require_room(SweepFolder(folder).report)
    with atomic_folder(SweepFolder(folder).report) as target:
        (target / "table.md").write_text(
            written("\n".join(map(to_markdown, tables.values()))), encoding="utf-8"
        )
        found = {key: to_html(table) for key, table in tables.items()}
        sections = {
            "Best run": paragraphs(_best(record)),
            "What varies": (parallel_coordinates(chart) if chart.lines else "") + found.get("groups", ""),
            "All runs": found.get("runs", ""),
        }
        subtitle = f"{record.name}: {len(states)} runs{counts}"
        write_page(target / "index.html", record.title, subtitle, sections)
    return SweepFolder(folder).page


def sweep_summary(folder: Path) -> str:
    """Points with their means as plain text, as wide as the terminal.

    Raises
    ------
    InputError
        As :func:`build_sweep`.
    """
    record = read_sweep(folder)
    table = point_table(record)
    if not table.rows:
        return "No run is finished and measured yet."
    return "\n\n".join([to_text(table, terminal_width()), *_untrained(record)])


def point_table(record: SweepRecord) -> Grid:
    """Points with their mean over seeds, and the difference to the best over the seeds that both have."""
    keys = [key for key in record.keys if key != SEED]
    rows = []
    for index, point in enumerate(record.points):
        best = record.points[0]
        shared = [point.values[seed] - best.values[seed] for seed in point.values if seed in best.values]
        difference = signed(sum(shared) / len(shared), 4) if index and shared else ""
        cells = [Cell(_shown(point.point.get(key))) for key in keys]
        mean = Cell(f"{point.mean:.4f}", _interval(point.half_width), mark="" if index else "best")
        apart = Cell(difference, _interval(half_width(shared)) if index and shared else "")
        rows.append((*(cells or [Cell("all")]), Cell(str(len(point.values))), mean, apart))
    return Grid(
        key="groups",
        title=f"Points, seeds together: {record.metric}",
        caption=f"Mean of {record.metric} over the seeds of a point, with its {1 - ALPHA:.0%} t interval, best first; "
        "difference to the best point over the seeds that both have.",
        columns=named_columns(*(keys or ["point"]), "seeds", "mean", "difference"),
        rows=tuple(rows),
    )


def run_table(record: SweepRecord) -> Grid:
    """Every run: its point, its state, and what it measured or said."""
    order = [outcome for outcome, _ in record.measured]
    order += [outcome for outcome in record.outcomes if outcome.value is None]
    rows = []
    for index, outcome in enumerate(order):
        value = "" if outcome.value is None else f"{outcome.value:.4f}"
        note = outcome.note.splitlines()[0] if outcome.note else ""
        rows.append(
            (
                Cell(outcome.run.name),
                *(Cell(_shown(outcome.run.point.get(key))) for key in record.keys),
                Cell(value, mark="best" if value and not index else ""),
                Cell("" if outcome.step is None else str(outcome.step)),
                Cell(outcome.state, note),
            )
        )
    return Grid(
        key="runs",
        title="Runs",
        caption="Every run of the sweep, the best first; its folder is runs/ and its name.",
        columns=named_columns("run", *record.keys, record.metric, "step", "state"),
        rows=tuple(rows),
    )


def coordinates(record: SweepRecord) -> Coordinates:
    """Return parallel coordinates: an axis a key and one for the metric, a line a run, the best last.

    Numbers that span more than a factor of ten are placed by their logarithm; anything else that is no number
    stands at equal distances.
    """
    runs = [outcome for outcome, _ in record.measured]
    axes = [_axis(key, [outcome.run.point.get(key) for outcome in runs]) for key in record.keys]
    axes.append(_axis(record.metric, [value for _, value in record.measured]))
    lines = [
        CoordinateLine(
            outcome.run.name,
            [places[index] for _, places, _ in axes],
            [texts[index] for _, _, texts in axes],
        )
        for index, outcome in enumerate(runs)
    ]
    return Coordinates([axis for axis, _, _ in axes], lines[::-1])


def _axis(label: str, values: list[Any]) -> tuple[CoordinateAxis, list[float], list[str]]:
    """An axis, and the place and the text of each of `values` on it."""
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if values and len(numbers) == len(values) and len(set(numbers)) > 1:
        logarithmic = min(numbers) > 0 and max(numbers) > 10 * min(numbers)
        scaled = [math.log(value) if logarithmic else float(value) for value in numbers]
        low, span = min(scaled), max(scaled) - min(scaled)
        places = [(value - low) / span for value in scaled]
    else:
        names = list(dict.fromkeys(map(_shown, values)))
        places = [names.index(_shown(value)) / max(1, len(names) - 1) for value in values]
    texts = [_shown(value) for value in values]
    ticks = sorted(dict(zip(places, texts, strict=True)).items())
    if len(ticks) > 8:  # as many as can be read: the ends and some between
        ticks = [ticks[round(index * (len(ticks) - 1) / 7)] for index in range(8)]
    return CoordinateAxis(label, ticks), places, texts


def _best(record: SweepRecord) -> list[str]:
    if not record.measured:
        return ["No run is finished and measured yet."]
    (best, value), group = record.measured[0], record.points[0]
    point = ", ".join(f"{key} = {_shown(setting)}" for key, setting in best.run.point.items())
    lines = [f"{best.run.name}: {record.metric} {value:.4f} with {point}."]
    if len(group.values) > 1:
        chosen = ", ".join(f"{key} = {_shown(setting)}" for key, setting in group.point.items()) or "all runs"
        lines.append(
            f"Over {len(group.values)} seeds the best point is {chosen}: mean {group.mean:.4f} "
            f"{_interval(group.half_width)}. A single best run is the luckier of its seeds; compare the means."
        )
    if record.metric == "loss" and any(
        key.startswith(("loss.", "training.batch_size")) for key in record.keys
    ):
        lines.append(
            "Losses of different temperatures, masks or batch sizes measure different things: set evaluation or metric."
        )
    return lines + _untrained(record)


def _untrained(record: SweepRecord) -> list[str]:
    """Warn of runs whose best step is the first: what they would publish was never trained."""
    names = [outcome.run.name for outcome in record.outcomes if outcome.best_step == 0]
    if not names:
        return []
    return [
        f"Warning: the best step of {len(names)} of {len(record.outcomes)} runs is 0, the model before training: "
        f"{', '.join(names)}. Their scores are the backbone's; `rembed publish` refuses them unless told otherwise."
    ]


def _interval(half: float | None) -> str:
    return "" if half is None else f"± {half:.4f}"


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
