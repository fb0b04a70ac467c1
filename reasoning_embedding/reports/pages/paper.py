"""Everything a paper's HRSA section needs, in one folder: figures, tables and an appendix."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_folder
from reasoning_embedding.progress import Report
from reasoning_embedding.reports.grid import Grid, markdown_list, to_csv, to_html, to_latex, to_markdown
from reasoning_embedding.reports.hrsa_tables import hrsa_details, spectrum_table
from reasoning_embedding.reports.paper.appendix import Section, appendix
from reasoning_embedding.reports.paper.tables import paper_tables
from reasoning_embedding.reports.reading import read_experiment
from reasoning_embedding.reports.resources import need
from reasoning_embedding.reports.shell import bullets, write_page
from reasoning_embedding.reports.style import SavedFigure
from reasoning_embedding.secrets import written


def build_paper(folder: Path, report: Report) -> list[Path]:
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
    need("matplotlib", "a paper's section")
    from reasoning_embedding.reports.paper.figures import paper_figures

    experiment = read_experiment(folder)
    if not experiment.pairs and not experiment.trajectories:
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
                stem.with_suffix(suffix).write_text(written(text), encoding="utf-8")
        (made / "appendix.md").write_text(written(_markdown(sections, tables)), encoding="utf-8")
        write_page(
            made / "appendix.html",
            f"{experiment.title}: what training does to the representation",
            f"{experiment.name}: {len(experiment.pairs)} pairs, {len(experiment.trajectories)} tracks",
            {title: bullets(sentences) for title, sentences in sections}
            | {"Tables": "".join(map(to_html, tables)), "Figures": "".join(map(_figure, figures))},
        )
    files = sorted(target.iterdir(), key=lambda path: (path.stem != "appendix", path.name))
    report(f"paper: {len(figures)} figures, {len(tables)} tables")
    return files


def _markdown(sections: Sequence[Section], tables: Sequence[Grid]) -> str:
    parts = [markdown_list(title, sentences) for title, sentences in sections]
    return "\n".join([*parts, *(to_markdown(table) for table in tables)])


def _figure(drawn: SavedFigure) -> str:
    return (
        f'<figure><img alt="{html.escape(drawn.png.stem)}" src="{html.escape(drawn.png.name)}">'
        f"<figcaption><p>{html.escape(drawn.caption)}</p></figcaption></figure>"
    )
