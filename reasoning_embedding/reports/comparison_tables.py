"""The score table for terminal, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reasoning_embedding.files import atomic_write
from reasoning_embedding.hrsa.uncertainty.equivalence import ALPHA, Equivalence
from reasoning_embedding.hrsa.uncertainty.replicates import LINEAGES

from .comparison import BackboneComparison, Entry, ScoreGroup, ScoreTable
from .grid import (
    Cell,
    Grid,
    TableColumn,
    escape,
    markdown_list,
    named_columns,
    to_latex,
    to_markdown,
    to_text,
)
from .labels import brackets, number, signed, training_kind

_LEVEL = f"{1 - ALPHA:.0%}"
#: Suffix of the file of each form.
FORMS = {"markdown": "md", "latex": "tex", "csv": "csv"}
_LINEAGES_CAPTION = (
    "Over lineages: a t statistic over lineage means, contrastive seeds averaged within; it alone speaks of a kind of "
    f"training, and from {LINEAGES} lineages on. Where lineages were grown, “over seeds” is within these lineages. "
)
_FIELDS = (
    "source,variant,base,kind,quantity,problem,base_mean,base_std,variant_mean,variant_std,delta,delta_std,"
    "base_seeds,variant_seeds,seeds_method,seeds_low,seeds_high,seeds_p,queries,queries_low,queries_high,"
    "queries_p,margin,verdict"
).split(",")

#: Only of experiments whose lineages were grown again.
_LINEAGE_FIELDS = ("lineages", "lineages_method", "lineages_low", "lineages_high", "lineages_p")


def grids(table: ScoreTable) -> list[Grid]:
    """Return the main table in the form papers print it, published pairs with it, and all tests one a line.

    Published pairs share the main table where it has a suite of theirs, and stand in one of their own if not.
    """
    suites = tuple(dict.fromkeys(entry.quantity for pair in table.published for entry in pair.entries))
    main = [*table.headline]
    if beside := any(suite in main for suite in suites):
        main += [suite for suite in suites if suite not in main]
    caption = (
        "Base / variant / difference ± standard deviation over seeds, in points of 0-100, with the "
        f"{_LEVEL} interval over {_shown_interval(table)} and the "
        f"verdict against a margin of {table.margin:g} points: within it (two one-sided tests, level {ALPHA:g}), "
        "beyond it (the whole interval outside), or open (neither is shown). A failed or missing task makes its "
        "means missing. Not corrected for the number of comparisons."
    )
    about = (
        f"Published: {table.source}, held against the same margin; intervals are over seeds and take the printed "
        "± for the standard deviation of the paired differences."
    )
    result = [_group_grid(table)] if table.groups else []
    result += [
        _main_grid(
            "score-pairs",
            "Scores: base and variants",
            f"{caption} {about}" if beside else caption,
            [*table.pairs, *(table.published if beside else ())],
            main,
        )
    ]
    if not beside:
        result.append(_main_grid("published", "Published scores", about, table.published, suites))
    return [*result, _test_grid(table)]


def _shown_interval(table: ScoreTable) -> str:
    if _grown_again(table):
        return f"lineages (no verdict below {LINEAGES} of them)"
    return "queries (over seeds where there are no scores of single queries)"


def _grown_again(table: ScoreTable) -> bool:
    return any(pair.lineages is not None for pair in table.pairs)


def to_terminal(table: ScoreTable, width: int) -> str:
    """Return all tables as plain text, with what is not in them and why."""
    parts = [f"{to_text(grid, width)}\n\n{grid.caption}" for grid in grids(table)]
    if table.notes:
        parts.append(
            "\n".join(["Not in these tables", *(f"- {' '.join(note.split())}" for note in table.notes)])
        )
    return "\n\n".join(parts)


def render(table: ScoreTable, form: str) -> str:
    """Return the table as ``markdown``, ``latex`` (booktabs) or ``csv`` (one line a pair and quantity)."""
    if form == "csv":
        return _to_csv(table)
    if form == "latex":
        parts = [to_latex(grid, f"tab:{grid.key}") for grid in grids(table)]
        return "\n".join([*parts, *(f"% {escape(note)}" for note in table.notes)]).rstrip() + "\n"
    parts = [to_markdown(_literal(grid)) for grid in grids(table)]
    if table.notes:
        parts.append(markdown_list("Not in these tables", [_literal_text(note) for note in table.notes]))
    return "\n".join(parts)


def write_score_table(folder: Path, table: ScoreTable) -> list[Path]:
    """Write ``scores.md``, ``scores.tex`` and ``scores.csv`` into a folder; return their paths.

    Raises
    ------
    SetupError
        If the folder cannot be written.
    """
    paths = []
    for form, suffix in FORMS.items():
        paths.append(folder / f"scores.{suffix}")
        atomic_write(paths[-1], render(table, form))
    return paths


def _group_grid(table: ScoreTable) -> Grid:
    """Readouts by backbones: the mean over seeds, with an interval over seeds and one over queries."""
    backbones = list(dict.fromkeys(group.backbone for group in table.groups))
    cells = {(group.backbone, group.readout): group for group in table.groups}
    rows = []
    for readout in dict.fromkeys(group.readout for group in table.groups):
        groups = [cells.get((backbone, readout)) for backbone in backbones]
        rows.append(
            (
                Cell(readout, f"({'/'.join(str(group.seeds) if group else '–' for group in groups)} seeds)"),
                *(_group_cell(group, quantity) for quantity in table.headline for group in groups),
            )
        )
    return Grid(
        key="score-readouts",
        title="Scores: readouts and backbones",
        caption=f"Mean over seeds ± half of its {_LEVEL} interval over seeds (Student’s t), in points of 0-100; in brackets "
        "the interval over queries of scores averaged over seeds (percentile bootstrap). The two answer different "
        "questions: another training run, other queries.",
        columns=(
            TableColumn("readout"),
            *(TableColumn(backbone, quantity) for quantity in table.headline for backbone in backbones),
        ),
        rows=tuple(rows),
    )


def _group_cell(group: ScoreGroup | None, quantity: str) -> Cell:
    score = group.scores.get(quantity) if group else None
    if score is None:
        return Cell("–" if group is None else "missing")
    half = "" if score.seeds is None else f" ± {number(score.seeds, 2)}"
    return Cell(f"{number(score.mean, 2)}{half}", brackets(score.queries, 2))


def _main_grid(
    key: str, title: str, caption: str, pairs: Sequence[BackboneComparison], quantities: Sequence[str]
) -> Grid:
    rows = []
    for pair in pairs:
        seeds = f"{pair.seeds[1]} v {pair.seeds[0]} seeds"
        seeds = seeds if pair.lineages is None else f"{pair.lineages} lineages, {pair.seeds[1]} runs a side"
        about = ", ".join(
            part for part in ("published" if pair.published else "", training_kind(pair.kind), seeds) if part
        )
        rows.append((Cell(pair.label, f"({about})"), *(_main_cell(pair.entry(name)) for name in quantities)))
    references = frozenset(index for index, pair in enumerate(pairs) if pair.published)
    return Grid(key, title, caption, named_columns("pair", *quantities), tuple(rows), references)


def _main_cell(entry: Entry | None) -> Cell:
    if entry is None or entry.problem:
        return Cell(entry.problem if entry else "–")
    test = entry.lineages or entry.queries or entry.seeds
    note = f"{_interval(test)} {entry.verdict}" if test else ""
    return Cell(f"{_mean(entry.base)} / {_mean(entry.variant)} / {_difference(entry)}", note)


def _test_grid(table: ScoreTable) -> Grid:
    columns = [*named_columns("pair and task", "base", "variant", "Δ ± std")]
    grown = _grown_again(table)
    sources = [("over seeds", "seeds"), ("over queries", "queries")]
    for source, unit in [("over lineages", "lineages"), *sources] if grown else sources:
        columns += [TableColumn(unit, source), TableColumn(_LEVEL, source), TableColumn("TOST p", source)]
    rows = []
    for pair in table.pairs:
        for entry in pair.entries:
            first = Cell(f"{pair.label}: {entry.quantity}")
            if entry.problem:
                rows.append((first, Cell(entry.problem), *(Cell("–") for _ in columns[1:])))
                continue
            seeds = f"{pair.seeds[1]} v {pair.seeds[0]}"
            lineages = [
                Cell(f"{pair.lineages or '–'} {entry.lineages.method if entry.lineages else ''}".rstrip()),
                Cell(_interval(entry.lineages)),
                Cell(_p(entry.lineages)),
            ]
            rows.append(
                (
                    first,
                    Cell(_with_std(entry.base)),
                    Cell(_with_std(entry.variant)),
                    Cell(_difference(entry)),
                    *(lineages if grown else ()),
                    Cell(f"{seeds} {entry.seeds.method}" if entry.seeds else seeds),
                    Cell(_interval(entry.seeds)),
                    Cell(_p(entry.seeds)),
                    Cell(str(entry.queries.n) if entry.queries else "–"),
                    Cell(_interval(entry.queries)),
                    Cell(_p(entry.queries)),
                    Cell(entry.verdict or "not tested"),
                )
            )
    return Grid(
        key="score-tests",
        title=f"Intervals and equivalence tests, margin {table.margin:g} points",
        caption=(_LINEAGES_CAPTION if grown else "")
        + "Over seeds: a t statistic over runs (paired where both have the same seeds, Welch's otherwise), "
        "for which each model needs two. Over queries: percentiles of a paired bootstrap of scores averaged over "
        "seeds; for a classification, over its experiments. TOST p is the larger p-value of the two one-sided "
        f"tests; below {ALPHA:g} the difference lies within the margin. The verdict is what all tests of the line "
        "agree on.",
        columns=(*columns, TableColumn("verdict")),
        rows=tuple(rows),
    )


def _mean(value: tuple[float, float | None] | None) -> str:
    return number(value[0] if value else None, 2)


def _with_std(value: tuple[float, float | None] | None) -> str:
    return _mean(value) if value is None or value[1] is None else f"{_mean(value)} ± {number(value[1], 2)}"


def _difference(entry: Entry) -> str:
    mean, std = entry.delta or (None, None)
    return signed(mean, 2) if std is None else f"{signed(mean, 2)} ± {number(std, 2)}"


def _interval(test: Equivalence | None) -> str:
    return brackets(test.confidence, 2, write=signed) if test else "–"


def _p(test: Equivalence | None) -> str:
    if test is None:
        return "–"
    return "<0.001" if test.p_value < 0.001 else number(test.p_value)


def _literal(grid: Grid) -> Grid:
    """Return a grid whose names Markdown shows as they are."""

    def cell(value: Cell) -> Cell:
        return replace(value, text=_literal_text(value.text), note=_literal_text(value.note))

    return replace(
        grid,
        columns=tuple(replace(column, label=_literal_text(column.label)) for column in grid.columns),
        rows=tuple(tuple(cell(value) for value in row) for row in grid.rows),
    )


def _literal_text(text: str) -> str:
    text = re.sub(r"[\\`*]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", text)
    return re.sub(r"\[(?=[^\]]*\]\()", r"\\[", text)  # a link or an image


def _to_csv(table: ScoreTable) -> str:
    target = io.StringIO()
    grown = _grown_again(table)
    within = ["within"] if table.groups else []
    fields = [*_FIELDS, *within, *(_LINEAGE_FIELDS if grown else ())]
    writer = csv.DictWriter(target, fields, lineterminator="\n")
    writer.writeheader()
    for pair in (*table.pairs, *table.published):
        for entry in pair.entries:
            base, variant, delta = (
                value or (None, None) for value in (entry.base, entry.variant, entry.delta)
            )
            seeds, queries = entry.seeds, entry.queries
            source = table.source if pair.published else "run"
            values: list[str | float | None] = [source, pair.variant, pair.base, pair.kind]
            values += [entry.quantity, entry.problem, *base, *variant, *delta, *pair.seeds]
            values += [seeds.method, *seeds.confidence, seeds.p_value] if seeds else [None] * 4
            values += [queries.n, *queries.confidence, queries.p_value] if queries else [None] * 4
            values += [table.margin, entry.verdict, *(pair.within for _ in within)]
            if grown:
                over = entry.lineages
                values += [
                    pair.lineages,
                    *((over.method, *over.confidence, over.p_value) if over else [None] * 4),
                ]
            writer.writerow(dict(zip(fields, values, strict=True)))
    return target.getvalue()
