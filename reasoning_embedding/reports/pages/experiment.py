"""The page of an experiment or a run, with its tables and figures: all or nothing."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints.layout import ExperimentFolder
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_folder
from reasoning_embedding.progress import Report
from reasoning_embedding.reports.charts import (
    Bars,
    LineChart,
    log_chart,
    score_bars,
    score_curves,
    sequence_plots,
)
from reasoning_embedding.reports.comparison import ScoreTable, compare_backbones
from reasoning_embedding.reports.comparison_tables import grids, write_score_table
from reasoning_embedding.reports.grid import (
    Grid,
    markdown_list,
    terminal_width,
    to_html,
    to_markdown,
    to_text,
)
from reasoning_embedding.reports.hrsa_charts import (
    HeatMap,
    diagonal_chart,
    explorer,
    heat_maps,
    realignment_chart,
)
from reasoning_embedding.reports.hrsa_tables import (
    hrsa_details,
    hrsa_summary,
    hrsa_table,
    spectrum_table,
    transfer_table,
)
from reasoning_embedding.reports.labels import metric_label
from reasoning_embedding.reports.narrative import findings
from reasoning_embedding.reports.reading import read_experiment
from reasoning_embedding.reports.records import Experiment
from reasoning_embedding.reports.replicates import (
    chance_table,
    replicate_sentences,
    replicate_table,
    weight_table,
)
from reasoning_embedding.reports.resources import need
from reasoning_embedding.reports.shell import bullets, explored_chart, folded, folded_table, write_page
from reasoning_embedding.reports.svg import bar_chart, line_chart, point_chart
from reasoning_embedding.reports.tables import (
    SEQUENCES_KEY,
    asking_table,
    compression_table,
    contamination_table,
    gate_table,
    score_details,
    score_table,
    sequence_tables,
)
from reasoning_embedding.secrets import written


def build_experiment(folder: Path, report: Report) -> Path:
    """Write ``report/``: ``index.html``, ``table.md`` and PNG figures.

    Where runs have several backbones, ``scores.md``, ``scores.tex`` and ``scores.csv`` compare them; where layers
    were analysed, plotly's script lies beside the page.

    Raises
    ------
    InputError
        If the folder holds neither an experiment nor a run, or a file in it is damaged.
    SetupError
        If matplotlib or plotly is needed and not installed, or the folder cannot be written.
    """
    need("matplotlib", "a report")
    experiment = read_experiment(folder)
    explored = _explored(experiment)
    if explored:
        need("plotly", "a report of analyses")
    report(
        f"report: runs {len(experiment.runs)}, baselines {len(experiment.baselines)}, "
        f"HRSA pairs {len(experiment.pairs)}, realignment tracks {len(experiment.trajectories)}"
    )
    experiment, compared = _compared(experiment)
    tables = [*build_tables(experiment), *(grids(compared) if compared else [])]
    with atomic_folder(ExperimentFolder(folder).report) as target:
        (target / "table.md").write_text(written(_markdown(experiment, tables)), encoding="utf-8")
        beside = ["table.md"]
        if compared:
            beside += [path.name for path in write_score_table(target, compared)]
        figures = draw_figures(experiment, target / "figures")
        report(f"report: {len(figures)} figures")
        beside = [f"figures/{name}" for name in figures] + beside
        sections = _sections(experiment, tables, explored, beside)
        write_page(
            target / "index.html", experiment.title, _subtitle(experiment), sections, explored=explored
        )
    page = ExperimentFolder(folder).page
    report(f"report: {page}")
    return page


def experiment_summary(folder: Path) -> str:
    """Scores, gates and HRSA of a folder as plain text, as wide as the terminal.

    Raises
    ------
    InputError
        As :func:`build_experiment`.
    """
    experiment = read_experiment(folder)
    makers = (replicate_table, weight_table, score_table, compression_table, gate_table, hrsa_summary)
    tables = [table for make in makers if (table := make(experiment)).rows]
    if not tables:
        return "Nothing to compare yet: no checkpoint was evaluated and no pair analysed."
    said = "\n".join(replicate_sentences(experiment))
    return "\n\n".join([*(to_text(table, terminal_width()) for table in tables), *([said] if said else [])])


def still_charts(experiment: Experiment) -> dict[str, LineChart | Bars]:
    """Every chart the experiment has data for that page and figures draw, by the name of its PNG."""
    charts = {
        "scores": score_bars(experiment),
        "scores-by-step": score_curves(experiment),
        "losses": log_chart(
            "training",
            "Training curves",
            experiment.runs,
            ("loss", "accuracy", "grad_norm"),
            experiment.looks,
        ),
        "lineage": log_chart(
            "lineage", "Growing the backbones", experiment.backbones, ("loss", "reward", "accuracy")
        ),
        "layers": diagonal_chart(experiment),
        "realignment": realignment_chart(experiment),
    }
    return {name: chart for name, chart in charts.items() if chart}


def draw_figures(experiment: Experiment, folder: Path) -> list[str]:
    """Draw every PNG the experiment has data for; returns their names in order."""
    from reasoning_embedding.reports.figures import draw_bars, draw_heat_maps, draw_lines, draw_points
    from reasoning_embedding.reports.style import safe_name

    folder.mkdir(parents=True, exist_ok=True)
    names: list[str] = []

    def place(name: str) -> Path:
        names.append(f"{name}.png")
        return folder / names[-1]

    for name, chart in still_charts(experiment).items():
        if isinstance(chart, Bars):
            draw_bars(chart, place(name))
        else:
            draw_lines(chart, place(name))
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
        replicate_table,
        chance_table,
        weight_table,
        score_table,
        compression_table,
        asking_table,
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


def _compared(experiment: Experiment) -> tuple[Experiment, ScoreTable | None]:
    """Compare the backbones of an experiment, or say in it why they cannot be compared."""
    scored = [run for run in experiment.runs if run.last]
    if not scored or len({(run.backbone or run.name, run.readout) for run in experiment.runs}) < 2:
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


def _explored(experiment: Experiment) -> dict[str, Any] | None:
    """What a reader explores: every HRSA number, and similarity of all layers; None where nothing was analysed."""
    found = {
        "explorer": explorer(experiment),
        "heatmaps": [asdict(heat_map) for heat_map in heat_maps(experiment)],
    }
    return found if any(found.values()) else None


def _subtitle(experiment: Experiment) -> str:
    counts = (
        (len(experiment.backbones), "grown backbone"),
        (len(experiment.runs), "training run"),
        (len(experiment.tasks), "retrieval task"),
        (len(experiment.pairs), "HRSA pair"),
    )
    found = [f"{count} {name}{'s' if count != 1 else ''}" for count, name in counts if count]
    return f"{experiment.name}: {', '.join(found)}"


def _sections(
    experiment: Experiment, tables: list[Grid], explored: dict[str, Any] | None, beside: Iterable[str]
) -> dict[str, str]:
    by_key = {table.key: table for table in tables}
    charts = still_charts(experiment)

    def table(key: str) -> str:
        return to_html(by_key[key]) if key in by_key else ""

    def more(*keys: str) -> str:
        return "".join(folded_table(by_key[key]) for key in keys if key in by_key)

    def chart(name: str) -> str:
        found = charts.get(name)
        if found is None:
            return ""
        return bar_chart(found) if isinstance(found, Bars) else line_chart(found)

    explored = explored or {}
    every = explored_chart("explorer", "One number at a time", "") if explored.get("explorer") else ""
    maps = "Rows: layers of the first model; columns: of the second."
    maps = explored_chart("heatmaps", "Similarity of all layers", maps) if explored.get("heatmaps") else ""
    sequences = "".join(to_html(found) for found in tables if found.key.startswith(SEQUENCES_KEY))
    for task, plots in sequence_plots(experiment).items():
        sequences += point_chart(f"tsne-{task}", plots)
    return {
        "What this shows": _findings(experiment),
        "Arms against their placebo": table("replicates") + table("replicate-chance") + table("weights"),
        "Retrieval": table("scores")
        + chart("scores")
        + chart("scores-by-step")
        + table("compressed")
        + table("score-pairs")
        + more("score-tests", "published", "asked", "score-details"),
        "Number sequences": sequences,
        "Training": chart("losses"),
        "Representation (HRSA)": table("hrsa")
        + every
        + maps
        + chart("layers")
        + table("transfer")
        + table("spectrum")
        + more("hrsa-details")
        + _definitions(experiment)
        + _warnings(experiment),
        "Realignment": chart("realignment"),
        "Lineage": table("gates") + chart("lineage"),
        "Contamination": table("contamination"),
        "How it was made": _manifests(experiment),
        "Not in this report": bullets(experiment.missing),
        "Files beside this page": bullets(beside),
    }


def _findings(experiment: Experiment) -> str:
    groups = findings(experiment)
    if not groups:
        return "<p>Nothing was scored or analysed yet, so there is nothing to say.</p>"
    return "".join(f"<h3>{html.escape(title)}</h3>{bullets(items)}" for title, items in groups)


def _definitions(experiment: Experiment) -> str:
    texts = {metric: text for pair in experiment.pairs for metric, text in pair.definitions.items()}
    rows = "".join(
        f"<dt>{html.escape(metric_label(metric).title)}</dt><dd>{html.escape(text)}</dd>"
        for metric, text in texts.items()
    )
    return folded("Definitions", f"<dl>{rows}</dl>" if rows else "")


def _warnings(experiment: Experiment) -> str:
    records = (*experiment.pairs, *experiment.trajectories)
    found = [f"{record.name}: {warning}" for record in records for warning in record.warnings]
    return folded(f"Warnings of the analysis ({len(found)})", bullets(found))


def _manifests(experiment: Experiment) -> str:
    return "".join(
        folded(
            f"{run.name}: manifest",
            f"<pre>{html.escape(json.dumps(run.manifest, indent=1, ensure_ascii=False))}</pre>",
        )
        for run in experiment.runs
        if run.manifest
    )
