"""The page of a sweep: parallel coordinates, the best run, seeds together with their interval, every run."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reasoning_embedding.files import atomic_folder
from reasoning_embedding.hrsa.uncertainty.equivalence import ALPHA
from reasoning_embedding.reports.grid import Cell, Column, Grid, to_html, to_markdown
from reasoning_embedding.reports.labels import COLOURS, DARK_COLOURS, signed
from reasoning_embedding.reports.shell import fill_template
from reasoning_embedding.reports.sweep_record import SEED, SweepRecord, half_width, read_sweep, value_of


def build_sweep(folder: Path, report: Callable[[str], None]) -> Path:
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
    tables = [table for table in (group_table(record), run_table(record)) if table.rows]
    with atomic_folder(folder / "report") as target:
        (target / "table.md").write_text("\n".join(map(to_markdown, tables)), encoding="utf-8")
        (target / "index.html").write_text(_page(record, tables), encoding="utf-8")
    return folder / "report" / "index.html"


def group_table(record: SweepRecord) -> Grid:
    """Points with their mean over seeds, and the difference to the best over the seeds that both have."""
    keys = [key for key in record.keys if key != SEED]
    rows = []
    for index, group in enumerate(record.groups):
        best = record.groups[0]
        shared = [group.values[seed] - best.values[seed] for seed in group.values if seed in best.values]
        difference = signed(sum(shared) / len(shared), 4) if index and shared else ""
        cells = [Cell(_shown(group.point.get(key))) for key in keys]
        mean = Cell(f"{group.mean:.4f}", _interval(group.half_width), mark="" if index else "best")
        apart = Cell(difference, _interval(half_width(shared)) if index and shared else "")
        rows.append((*(cells or [Cell("all")]), Cell(str(len(group.values))), mean, apart))
    return Grid(
        key="groups",
        title=f"Points, seeds together: {record.metric}",
        caption=f"Mean of {record.metric} over the seeds of a point, with its {1 - ALPHA:.0%} t interval, best first; "
        "difference to the best point over the seeds that both have.",
        columns=tuple(Column(name) for name in [*(keys or ["point"]), "seeds", "mean", "difference"]),
        rows=tuple(rows),
    )


def run_table(record: SweepRecord) -> Grid:
    """Every run: its point, its state, and what it measured or said."""
    order = [*record.measured, *(outcome for outcome in record.outcomes if outcome.value is None)]
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
        columns=tuple(Column(name) for name in ["run", *record.keys, record.metric, "step", "state"]),
        rows=tuple(rows),
    )


def coordinates(record: SweepRecord) -> dict[str, Any]:
    """Return parallel coordinates as plain lists: an axis a key and one for the metric, a line a run.

    Numbers that span more than a factor of ten are placed by their logarithm; anything else that is no number
    stands at equal distances. Places are in [0, 1].
    """
    runs = record.measured
    axes = [_axis(key, [outcome.run.point.get(key) for outcome in runs]) for key in record.keys]
    axes.append(_axis(record.metric, [outcome.value for outcome in runs]))
    worst_first = [
        {"name": outcome.run.name, "y": [axis["places"][index] for axis in axes], "texts": texts}
        for index, outcome in enumerate(runs)
        for texts in [[axis["texts"][index] for axis in axes]]
    ][::-1]
    shown = [{"label": axis["label"], "ticks": axis["ticks"]} for axis in axes]
    return {"axes": shown, "lines": worst_first, "colours": COLOURS, "dark": DARK_COLOURS}


def _axis(label: str, values: list[Any]) -> dict[str, Any]:
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
    return {"label": label, "places": places, "texts": texts, "ticks": ticks}


def _page(record: SweepRecord, tables: list[Grid]) -> str:
    data = coordinates(record)
    grids = {grid.key: to_html(grid) for grid in tables}
    chart = (
        '<figure class="chart" id="coordinates"><figcaption><h3>Parallel coordinates</h3></figcaption>'
        '<div class="plot"></div><p class="note">A line a run, from the value of each key to what it measured; '
        "the darker, the better.</p></figure>"
    )
    counts = {
        state: sum(o.state == state for o in record.outcomes) for state in {o.state for o in record.outcomes}
    }
    subtitle = f"{record.name}: {len(record.outcomes)} runs" + "".join(
        f", {count} {state}" for state, count in sorted(counts.items())
    )
    sections = {
        "Best run": _best(record),
        "What varies": (chart if data["lines"] else "") + grids.get("groups", ""),
        "All runs": grids.get("runs", ""),
    }
    body = "\n".join(
        f'<section id="{title.lower().replace(" ", "-")}"><h2>{title}</h2>{content}</section>'
        for title, content in sections.items()
        if content
    )
    return fill_template("sweep.js", title=record.title, subtitle=subtitle, body=body, data=data)


def _best(record: SweepRecord) -> str:
    if not record.measured:
        return "<p>No run is finished and measured yet.</p>"
    best, group = record.measured[0], record.groups[0]
    point = ", ".join(f"{key} = {_shown(value)}" for key, value in best.run.point.items())
    lines = [f"{best.run.name}: {record.metric} {value_of(best):.4f} with {point}."]
    if len(group.values) > 1:
        chosen = ", ".join(f"{key} = {_shown(value)}" for key, value in group.point.items()) or "all runs"
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
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _interval(half: float | None) -> str:
    return "" if half is None else f"± {half:.4f}"


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
