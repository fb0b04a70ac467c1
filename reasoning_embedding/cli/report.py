"""``rembed report``: the page of an experiment or a run, and the table of its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import require_folder

from ._terminal import next_command

_FORMS = ("text", "markdown", "latex", "csv")


def command(
    folder: Annotated[Path, typer.Argument(help="An experiment's or a run's folder.", metavar="FOLDER")],
    table: Annotated[
        bool, typer.Option("--table", help="Only the table: base, variants, differences, equivalence.")
    ] = False,
    paper: Annotated[
        bool,
        typer.Option("--paper", help="Only the HRSA figures (PNG, PDF), tables and appendix of a paper."),
    ] = False,
    base: Annotated[
        str | None, typer.Option(metavar="NAME", help="Backbone to compare with; absent: the first run's.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(metavar="X", help="Equivalence margin in points of 0-100 [default: 0.5].")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", metavar="|".join(_FORMS), help="What is printed.")
    ] = None,
) -> None:
    """Make the page, figures and tables of a folder; with --table, print and write the table of scores alone.

    The table is written to report/ as scores.md, scores.tex and scores.csv, whatever is printed; what --paper makes
    goes to paper/.

    Raises
    ------
    InputError
        If the folder is neither an experiment nor a run, or its runs cannot be compared.
    """
    if folder.is_dir():  # what is no folder at all is said by whoever reads it
        require_folder(folder)
    if paper and table:
        raise InputError("--paper and --table make different things", todo="leave one of them out")
    if not table:
        for option, value in (("--base", base), ("--margin", margin), ("--format", form)):
            if value is not None:
                raise InputError(f"{option} belongs to the table", todo=f"add --table, or leave {option} out")
        if paper:
            from reasoning_embedding.reports.pages.paper import build_paper

            for path in build_paper(folder, typer.echo):
                typer.echo(f"paper: {path}")
            return
        from reasoning_embedding.reports import build, summary_table

        page = build(folder, typer.echo)
        typer.echo(summary_table(folder))
        typer.echo(f"report: {page.resolve()}")
        next_command("report")
        return
    form = form or "text"
    if form not in _FORMS:
        from reasoning_embedding.config.reading.suggestions import did_you_mean

        raise InputError(
            f"no form {form!r}{did_you_mean(form, _FORMS)}",
            where="--format",
            todo=f"choose among {', '.join(_FORMS)}",
        )
    from reasoning_embedding.checkpoints.layout import ResultFolder
    from reasoning_embedding.reports.comparison import MARGIN, compare_backbones
    from reasoning_embedding.reports.comparison_tables import render, to_terminal, write_score_table
    from reasoning_embedding.reports.grid import terminal_width

    scores = compare_backbones(folder, base=base, margin=MARGIN if margin is None else margin)
    paths = write_score_table(ResultFolder(folder).report, scores)
    typer.echo(to_terminal(scores, terminal_width()) if form == "text" else render(scores, form))
    # What is printed in a form may be piped to a file: it stays alone on standard output.
    typer.echo(f"table: {', '.join(str(path) for path in paths)}", err=form != "text")
