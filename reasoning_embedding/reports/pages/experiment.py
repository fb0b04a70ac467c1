"""The page of an experiment or a run, with its tables and figures: all or nothing."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints.layout import ExperimentFolder
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_folder
from reasoning_embedding.progress import Report
from reasoning_embedding.reports.charts import (
    Bars,
    EffectChart,
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
from reasoning_embedding.reports.headline import Headline, few_rows, headline
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
    level_table,
    spectrum_table,
    transfer_table,
)
from reasoning_embedding.reports.labels import metric_label
from reasoning_embedding.reports.names import run_title
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
from reasoning_embedding.reports.shell import (
    bullets,
    explored_chart,
    folded,
    folded_table,
    require_room,
    write_page,
)
from reasoning_embedding.reports.svg import bar_chart, effect_chart, line_chart, point_chart
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
    require_room(ExperimentFolder(folder).report, explored=bool(explored), figures=4)
    with atomic_folder(ExperimentFolder(folder).report) as target:
        first = headline(experiment, compared)
        (target / "table.md").write_text(written(_markdown(experiment, first, tables)), encoding="utf-8")
        beside = ["table.md"]
        if compared:
            beside += [path.name for path in write_score_table(target, compared)]
        figures = draw_figures(experiment, target / "figures", first.chart)
        report(f"report: {len(figures)} figures")
        beside = [f"figures/{name}" for name in figures] + beside
        sections = _sections(experiment, first, tables, explored, beside)
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
            partial(run_title, experiment),
        ),
        "lineage": log_chart(
            "lineage", "Growing the backbones", experiment.backbones, ("loss", "reward", "accuracy")
        ),
        "layers": diagonal_chart(experiment),
        "realignment": realignment_chart(experiment),
    }
    return {name: chart for name, chart in charts.items() if chart}


def draw_figures(experiment: Experiment, folder: Path, first: EffectChart | None) -> list[str]:
    """Draw every PNG the experiment has data for, the one that answers first; returns their names in order."""
    from reasoning_embedding.reports.figures import (
        draw_bars,
        draw_effects,
        draw_heat_maps,
        draw_lines,
        draw_points,
    )
    from reasoning_embedding.reports.style import safe_name

    folder.mkdir(parents=True, exist_ok=True)
    names: list[str] = []

    def place(name: str) -> Path:
        names.append(f"{name}.png")
        return folder / names[-1]

    if first:
        draw_effects(first, place("answer"))
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
        level_table,
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


def _markdown(experiment: Experiment, first: Headline, tables: list[Grid]) -> str:
    answers = [f"{question} {answer}" for question, answer in first.sentences]
    parts = [markdown_list("What this shows", answers), *(to_markdown(table) for table in tables)]
    shown = [text for _, texts in findings(experiment) for text in texts]
    if shown:
        parts.append(markdown_list("Every comparison in a sentence", shown))
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
    experiment: Experiment,
    first: Headline,
    tables: list[Grid],
    explored: dict[str, Any] | None,
    beside: Iterable[str],
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
    scores = chart("scores") + chart("scores-by-step")
    return {
        "": _answer(first),
        "Arms against their placebo": table("replicates") + more("replicate-chance", "weights"),
        "Retrieval": table("scores")
        + table("score-readouts")
        + table("score-pairs")
        + table("compressed")
        + folded("Scores as charts", scores)
        + more("score-tests", "published", "asked", "score-details"),
        "Number sequences": sequences,
        "Representation (HRSA)": _few_rows(experiment)
        + table("hrsa")
        + chart("layers")
        + more("reference-levels")
        + folded("One number at a time", every)
        + folded("Similarity of all layers", maps)
        + folded("Similarity to the start, step by step", chart("realignment"))
        + more("transfer", "spectrum", "hrsa-details")
        + _definitions(experiment)
        + _warnings(experiment),
        "Training and lineage": table("gates")
        + folded("Training curves", chart("losses"))
        + folded("Growing the backbones", chart("lineage")),
        "Contamination": table("contamination"),
        "How it was made": folded("Every comparison in a sentence", _findings(experiment))
        + _manifests(experiment)
        + folded("Files beside this page", bullets(beside)),
        "Not in this report": bullets(experiment.missing),
    }


def _answer(first: Headline) -> str:
    boxes = "".join(
        f"<div><h3>{html.escape(question)}</h3><p>{html.escape(answer)}</p></div>"
        for question, answer in first.sentences
    )
    return f'<div class="answers">{boxes}</div>' + (effect_chart(first.chart) if first.chart else "")


def _findings(experiment: Experiment) -> str:
    return "".join(f"<h3>{html.escape(title)}</h3>{bullets(items)}" for title, items in findings(experiment))


def _few_rows(experiment: Experiment) -> str:
    """Say where a few long rows decide, and what to read there."""
    found = few_rows(experiment)
    if not found:
        return ""
    lead = (
        "Few rows carry the variance in some layers (attention sinks or rogue dimensions): read CKA of unit rows and k-NN "
        "overlap there."
    )
    return f'<p class="caution">{html.escape(lead)}</p>' + folded("Which layers", bullets(found))


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
