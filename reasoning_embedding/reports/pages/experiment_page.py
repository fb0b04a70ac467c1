"""Put a report together: page, tables and figures, all or nothing."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from reasoning_embedding.errors import InputError, SetupError
from reasoning_embedding.files import atomic_folder
from reasoning_embedding.reports.charts import log_chart, score_bars, score_curves
from reasoning_embedding.reports.collect import collect
from reasoning_embedding.reports.contamination import contamination_table
from reasoning_embedding.reports.grid import Grid, markdown_list, to_markdown, to_text
from reasoning_embedding.reports.hrsa_charts import HeatMap, diagonal_chart, heat_maps, realignment_chart
from reasoning_embedding.reports.hrsa_tables import (
    hrsa_details,
    hrsa_summary,
    hrsa_table,
    spectrum_table,
    transfer_table,
)
from reasoning_embedding.reports.labels import HEADLINE
from reasoning_embedding.reports.narrative import findings
from reasoning_embedding.reports.number_sequences import sequence_plots, sequence_tables
from reasoning_embedding.reports.records import Experiment
from reasoning_embedding.reports.score_table import score_table as compare_backbones
from reasoning_embedding.reports.score_table_forms import grids, write_score_table
from reasoning_embedding.reports.score_table_records import ScoreTable
from reasoning_embedding.reports.tables import gate_table, score_details, score_table


def build(folder: Path, report: Callable[[str], None] | None = None) -> Path:
    """Write ``report/`` into an experiment, run or sweep folder: ``index.html``, ``table.md`` and PNG figures.

    Where runs have several backbones, ``scores.md``, ``scores.tex`` and ``scores.csv`` compare them.

    Parameters
    ----------
    folder : Path
        An experiment folder, the folder of one run, or that of a sweep, whose page is another one.
    report : callable, optional
        Told in a line what is being done.

    Returns
    -------
    Path
        ``report/index.html``; it opens offline, from any place.

    Raises
    ------
    InputError
        If the folder holds neither an experiment nor a run, or a file in it is damaged.
    SetupError
        If matplotlib or plotly is not installed, or the folder cannot be written.
    """
    for library in ("matplotlib", "plotly"):
        if importlib.util.find_spec(library) is None:
            raise SetupError(f"a report needs {library}", todo='pip install "reasoning-embedding[report]"')
    say = report or (lambda _: None)
    if (folder / "sweep.json").exists():
        from .sweep_page import build_sweep

        return build_sweep(folder, say)
    from reasoning_embedding.reports.shell import render

    experiment = collect(folder)
    say(
        f"report: runs {len(experiment.runs)}, baselines {len(experiment.baselines)}, "
        f"HRSA pairs {len(experiment.pairs)}, realignment tracks {len(experiment.realignments)}"
    )
    experiment, pairs = _pairs(experiment)
    tables = [*build_tables(experiment), *(grids(pairs) if pairs else [])]
    with atomic_folder(folder / "report") as target:
        (target / "table.md").write_text(_markdown(experiment, tables), encoding="utf-8")
        if pairs:
            write_score_table(target, pairs)
        figures = draw_figures(experiment, target / "figures")
        say(f"report: {len(figures)} figures")
        shown = [name for name in figures if name.startswith("tsne-")]
        pictures = {name: (target / "figures" / name).read_bytes() for name in shown}
        (target / "index.html").write_text(render(experiment, tables, figures, pictures), encoding="utf-8")
    page = folder / "report" / "index.html"
    say(f"report: {page}")
    return page


def summary_table(folder: Path) -> str:
    """Scores, gates and HRSA of a folder as plain text, as wide as the terminal.

    Raises
    ------
    InputError
        As :func:`build`.
    """
    width = max(60, shutil.get_terminal_size(fallback=(110, 24)).columns)
    if (folder / "sweep.json").exists():
        from reasoning_embedding.reports.sweep_record import read_sweep

        from .sweep_page import group_table

        table = group_table(read_sweep(folder))
        return to_text(table, width) if table.rows else "No run is finished and measured yet."
    experiment = collect(folder)
    tables = [table for make in (score_table, gate_table, hrsa_summary) if (table := make(experiment)).rows]
    if not tables:
        return "Nothing to compare yet: no checkpoint was evaluated and no pair analysed."
    return "\n\n".join(to_text(table, width) for table in tables)


def draw_figures(experiment: Experiment, folder: Path) -> list[str]:
    """Draw every PNG the experiment has data for; returns their names in order."""
    from reasoning_embedding.reports.figures import (
        draw_bars,
        draw_heat_maps,
        draw_lines,
        draw_points,
        safe_name,
    )

    folder.mkdir(parents=True, exist_ok=True)
    names: list[str] = []

    def place(name: str) -> Path:
        names.append(f"{name}.png")
        return folder / names[-1]

    if bars := score_bars(experiment):
        draw_bars(bars, place("scores"))
    if chart := score_curves(experiment):
        draw_lines(chart, place("scores-by-step"))
    if chart := log_chart("training", "Contrastive training", experiment.runs, experiment.looks):
        draw_lines(chart, place("losses"), only=("loss", "accuracy", "grad_norm"))
    if chart := log_chart("lineage", "Growing the backbones", experiment.stages):
        draw_lines(chart, place("lineage"), only=("loss", "reward", "accuracy"))
    if chart := realignment_chart(experiment):
        draw_lines(chart, place("realignment"), only=tuple(f"series/{metric}" for metric in HEADLINE))
    if chart := diagonal_chart(experiment):
        draw_lines(chart, place("layers"), only=HEADLINE)
    maps: dict[str, list[HeatMap]] = {}
    for heat_map in heat_maps(experiment):
        maps.setdefault(heat_map.pair, []).append(heat_map)
    for pair, group in maps.items():
        draw_heat_maps(group, place(f"heatmap-{safe_name(pair)}"))
    for task, plots in sequence_plots(experiment).items():
        draw_points(plots, place(f"tsne-{safe_name(task)}"))
    return names


def build_tables(experiment: Experiment) -> list[Grid]:
    """Every table the experiment has data for, in the order of the page."""
    makers = (
        score_table,
        score_details,
        gate_table,
        hrsa_table,
        hrsa_details,
        transfer_table,
        spectrum_table,
        contamination_table,
    )
    tables = [table for make in makers if (table := make(experiment)).rows]
    return [*tables, *sequence_tables(experiment)]


def _pairs(experiment: Experiment) -> tuple[Experiment, ScoreTable | None]:
    """Compare the backbones of an experiment, or say in it why they cannot be compared."""
    scored = [run for run in experiment.runs if run.last]
    if not scored or len({run.backbone or run.name for run in experiment.runs}) < 2:
        return experiment, None
    try:
        return experiment, compare_backbones(experiment.folder)
    except InputError as error:
        reason = f"table of base and variants: {error.what}"
        return replace(experiment, missing=(*experiment.missing, reason)), None


def _markdown(experiment: Experiment, tables: list[Grid]) -> str:
    parts = [to_markdown(table) for table in tables]
    shown = [text for _, texts in findings(experiment) for text in texts]
    if shown:
        parts.insert(0, markdown_list("What this shows", shown))
    if experiment.missing:
        parts.append(markdown_list("Not in this report", experiment.missing))
    return "\n".join(parts)
