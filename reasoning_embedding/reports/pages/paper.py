"""Everything a paper's HRSA section needs, in one folder: figures, tables and an appendix."""

from __future__ import annotations

import base64
import html
import importlib.util
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from reasoning_embedding.errors import InputError, SetupError
from reasoning_embedding.files import atomic_folder
from reasoning_embedding.reports.appendix import Section, appendix
from reasoning_embedding.reports.collect import collect
from reasoning_embedding.reports.grid import Grid, markdown_list, to_csv, to_html, to_markdown
from reasoning_embedding.reports.hrsa_tables import hrsa_details, spectrum_table
from reasoning_embedding.reports.latex import to_latex
from reasoning_embedding.reports.paper_style import Drawn
from reasoning_embedding.reports.paper_tables import paper_tables
from reasoning_embedding.reports.records import Experiment

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<header><h1>{title}</h1><p>{subtitle}</p></header>
<main>
{body}
</main>
</body>
</html>
"""


def build_paper(folder: Path, report: Callable[[str], None]) -> list[Path]:
    """Write ``paper/``: every figure as PNG and PDF, tables in three forms, ``appendix.html`` and ``.md``.

    Parameters
    ----------
    folder : Path
        An experiment's or a run's folder, or one with ``hrsa/track.parquet``.
    report : callable
        Takes a line at a time.

    Returns
    -------
    list of Path
        The files, the appendix first.

    Raises
    ------
    InputError
        If nothing was analysed or tracked there, or a file is damaged.
    SetupError
        If matplotlib is not installed, or the folder cannot be written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise SetupError("figures need matplotlib", todo='pip install "reasoning-embedding[report]"')
    from reasoning_embedding.reports.paper_figures import paper_figures

    experiment = collect(folder)
    if not experiment.pairs and not experiment.realignments:
        raise InputError(
            "nothing was analysed here",
            where=str(folder),
            todo="add an analysis section, or run `rembed track`",
        )
    tables = [*paper_tables(experiment)]
    tables += [table for make in (spectrum_table, hrsa_details) if (table := make(experiment)).rows]
    sections = appendix(experiment)
    target = folder / "paper"
    with atomic_folder(target) as made:
        figures = paper_figures(experiment, made)
        for table in tables:
            stem = made / f"table-{table.key}"
            for suffix, text in (
                (".md", to_markdown(table)),
                (".tex", to_latex(table, f"tab:{table.key}")),
                (".csv", to_csv(table)),
            ):
                stem.with_suffix(suffix).write_text(text, encoding="utf-8")
        (made / "appendix.md").write_text(_markdown(sections, tables), encoding="utf-8")
        (made / "appendix.html").write_text(_page(experiment, sections, tables, figures), encoding="utf-8")
    files = sorted(target.iterdir(), key=lambda path: (path.stem != "appendix", path.name))
    report(f"paper: {len(figures)} figures, {len(tables)} tables")
    return files


def _markdown(sections: Sequence[Section], tables: Sequence[Grid]) -> str:
    parts = [markdown_list(title, sentences) for title, sentences in sections]
    return "\n".join([*parts, *(to_markdown(table) for table in tables)])


def _page(
    experiment: Experiment, sections: Sequence[Section], tables: Sequence[Grid], figures: Sequence[Drawn]
) -> str:
    """One file without scripts; every text is escaped, and a policy forbids any request."""
    body = [
        f"<section><h2>{html.escape(title)}</h2><ul>"
        + "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
        + "</ul></section>"
        for title, sentences in sections
    ]
    body.append(f"<section><h2>Tables</h2>{''.join(to_html(table) for table in tables)}</section>")
    body.append(f"<section><h2>Figures</h2>{''.join(_figure(drawn) for drawn in figures)}</section>")
    style = (resources.files("reasoning_embedding.reports") / "template" / "page.css").read_text("utf-8")
    return _PAGE.format(
        title=html.escape(f"{experiment.title}: what training does to the representation"),
        subtitle=html.escape(
            f"{experiment.name}: {len(experiment.pairs)} pairs, {len(experiment.realignments)} tracks"
        ),
        style=style,
        body="\n".join(body),
    )


def _figure(drawn: Drawn) -> str:
    data = base64.b64encode(drawn.png.read_bytes()).decode("ascii")
    return (
        f'<figure><img alt="{html.escape(drawn.png.stem)}" src="data:image/png;base64,{data}">'
        f"<figcaption><p>{html.escape(drawn.caption)}</p></figcaption></figure>"
    )
