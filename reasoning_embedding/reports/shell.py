"""One self-contained HTML page: plotly, style, script, data and tables in a single file."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from importlib import resources
from typing import Any

from .charts import log_chart, score_bars, score_curves
from .explorer import explorer
from .grid import Grid, to_html
from .hrsa_charts import diagonal_chart, heat_maps, realignment_chart
from .labels import COLOURS, DARK_COLOURS, DASHES, HATCHES, metric_label
from .narrative import findings
from .number_sequences import SEQUENCES_KEY
from .records import Experiment

_SLOT = re.compile(r"\{\{(\w+)\}\}")


def render(
    experiment: Experiment, tables: list[Grid], figures: list[str], pictures: dict[str, bytes] | None = None
) -> str:
    """The page's HTML.

    Parameters
    ----------
    experiment : Experiment
        What to show.
    tables : list of Grid
        Its tables, as they are also written beside the page.
    figures : list of str
        Names of the PNGs beside the page, for the list at its end.
    pictures : dict of str to bytes, optional
        PNGs shown within the page, under what they show.

    Notes
    -----
    Every text from a file is escaped: in HTML by ``html.escape``, in the data by leaving no ``<`` in it (so it
    cannot close its script element), in charts by the script. A content security policy forbids any request.
    """
    data = _chart_data(experiment)
    body = _body(experiment, data, tables, figures, pictures or {})
    scripts = ("explorer.js", "page.js")
    return fill_template(
        *scripts, title=experiment.title, subtitle=_subtitle(experiment), body=body, data=data
    )


def fill_template(*scripts: str, title: str, subtitle: str, body: str, data: dict[str, Any]) -> str:
    """Return a page that needs nothing but itself.

    Parameters
    ----------
    *scripts : str
        Files among the templates that draw the charts from `data`.
    title, subtitle : str
        Escaped here.
    body : str
        HTML.
    data : dict
        JSON values.
    """
    from plotly.offline import get_plotlyjs

    template = resources.files("reasoning_embedding.reports") / "template"
    slots = {
        "title": html.escape(title),
        "subtitle": html.escape(subtitle),
        "style": (template / "page.css").read_text(encoding="utf-8"),
        "script": "\n".join((template / script).read_text(encoding="utf-8") for script in scripts),
        "plotly": get_plotlyjs(),
        "data": json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
        "body": body,
    }
    page = (template / "page.html").read_text(encoding="utf-8")
    return _SLOT.sub(lambda match: slots[match[1]], page)


def _subtitle(experiment: Experiment) -> str:
    counts = (
        (len(experiment.stages), "grown backbone"),
        (len(experiment.runs), "training run"),
        (len(experiment.tasks), "retrieval task"),
        (len(experiment.pairs), "HRSA pair"),
    )
    found = [f"{count} {name}{'s' if count != 1 else ''}" for count, name in counts if count]
    return f"{experiment.name}: {', '.join(found)}"


def _chart_data(experiment: Experiment) -> dict[str, Any]:
    """What the script draws from: plain lists and dictionaries."""
    charts = [
        score_curves(experiment),
        log_chart("training", "Training curves", experiment.runs, experiment.looks),
        log_chart("lineage", "Growing the backbones", experiment.stages),
        diagonal_chart(experiment),
        realignment_chart(experiment),
    ]
    bars = score_bars(experiment)
    return {
        "colours": COLOURS,
        "dark": DARK_COLOURS,
        "dashes": [dash for _, dash in DASHES],
        "hatches": [shape for _, shape in HATCHES],
        "charts": {chart.key: asdict(chart) for chart in charts if chart},
        "explorer": explorer(experiment),
        "heatmaps": [asdict(heat_map) for heat_map in heat_maps(experiment)],
        "bars": asdict(bars) if bars else None,
    }


def _body(
    experiment: Experiment,
    data: dict[str, Any],
    tables: list[Grid],
    figures: list[str],
    pictures: dict[str, bytes],
) -> str:
    grids = {grid.key: grid for grid in tables}
    charts = data["charts"]

    def table(key: str) -> str:
        return to_html(grids[key]) if key in grids else ""

    def chart(key: str) -> str:
        return _chart_slot(key, charts[key]["title"], charts[key]["note"]) if key in charts else ""

    bars = _chart_slot("bars", "Scores at the last step", "A short line across a bar is the score at step 0.")
    maps = _chart_slot(
        "heatmaps", "Similarity of all layers", "Rows: layers of the first model; columns: of the second."
    )
    every = _chart_slot("explorer", "One number at a time", "")
    sections = {
        "What this shows": _findings(experiment),
        "Retrieval": table("scores")
        + (bars if data["bars"] else "")
        + chart("score-curves")
        + table("score-pairs")
        + "".join(_details(grids, key) for key in ("score-tests", "published", "score-details")),
        "Number sequences": "".join(table(key) for key in grids if key.startswith(SEQUENCES_KEY))
        + "".join(_picture(name, png) for name, png in pictures.items()),
        "Training": chart("training"),
        "Representation (HRSA)": table("hrsa")
        + (every if data["explorer"] else "")
        + (maps if data["heatmaps"] else "")
        + chart("layers")
        + table("transfer")
        + table("spectrum")
        + _details(grids, "hrsa-details")
        + _definitions(experiment)
        + _warnings(experiment),
        "Realignment": chart("realignment"),
        "Lineage": table("gates") + chart("lineage"),
        "Contamination": table("contamination"),
        "How it was made": _manifests(experiment),
        "Not in this report": _list(experiment.missing) if experiment.missing else "",
        "Files beside this page": _list(
            [f"figures/{name}" for name in figures]
            + ["table.md", *(["scores.md", "scores.tex", "scores.csv"] if "score-pairs" in grids else [])]
        ),
    }
    parts = []
    for title, content in sections.items():
        if content:
            key = re.sub(r"[^a-z]+", "-", title.lower()).strip("-")
            parts.append(f'<section id="{key}"><h2>{html.escape(title)}</h2>{content}</section>')
    return "\n".join(parts)


def _chart_slot(key: str, title: str, note: str) -> str:
    return (
        f'<figure class="chart" data-chart="{html.escape(key)}"><figcaption><h3>{html.escape(title)}</h3></figcaption>'
        f'<div class="controls"></div><div class="plot"></div><p class="note">{html.escape(note)}</p></figure>'
    )


def _picture(name: str, data: bytes) -> str:
    text = base64.b64encode(data).decode("ascii")
    return f'<figure><img alt="{html.escape(name)}" src="data:image/png;base64,{text}"></figure>'


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in items) + "</ul>"


def _findings(experiment: Experiment) -> str:
    groups = findings(experiment)
    if not groups:
        return "<p>Nothing was scored or analysed yet, so there is nothing to say.</p>"
    return "".join(f"<h3>{html.escape(title)}</h3>{_list(items)}" for title, items in groups)


def _details(grids: dict[str, Grid], key: str) -> str:
    if key not in grids:
        return ""
    return f"<details><summary>{html.escape(grids[key].title)}</summary>{to_html(grids[key])}</details>"


def _definitions(experiment: Experiment) -> str:
    texts = {metric: text for pair in experiment.pairs for metric, text in pair.definitions.items()}
    if not texts:
        return ""
    rows = "".join(
        f"<dt>{html.escape(metric_label(metric).title)}</dt><dd>{html.escape(text)}</dd>"
        for metric, text in texts.items()
    )
    return f"<details><summary>Definitions</summary><dl>{rows}</dl></details>"


def _warnings(experiment: Experiment) -> str:
    records = (*experiment.pairs, *experiment.realignments)
    found = [f"{record.name}: {warning}" for record in records for warning in record.warnings]
    if not found:
        return ""
    return f"<details><summary>Warnings of the analysis ({len(found)})</summary>{_list(found)}</details>"


def _manifests(experiment: Experiment) -> str:
    blocks = []
    for run in experiment.runs:
        if run.manifest:
            text = html.escape(json.dumps(run.manifest, indent=1, ensure_ascii=False))
            blocks.append(
                f"<details><summary>{html.escape(run.name)}: manifest</summary><pre>{text}</pre></details>"
            )
    return "".join(blocks)
