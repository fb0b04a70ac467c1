"""A table as data, and its forms: terminal text, Markdown, HTML, LaTeX and CSV."""

from __future__ import annotations

import csv
import html
import io
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

#: What a mark looks like where there is no colour.
_WORDS = {
    "inside": "inside",
    "closer": "closer",
    "farther": "farther",
    "across": "across",
    "best": "*",
    "pass": "ok",
    "miss": "MISSED",
}


#: A new line within a cell of LaTeX.
_NEXT = r" \\ "


@dataclass(frozen=True)
class TableColumn:
    """A column; neighbours of one `group` share a heading above their own."""

    label: str
    group: str = ""


def named_columns(*labels: str) -> tuple[TableColumn, ...]:
    """Columns without groups."""
    return tuple(TableColumn(label) for label in labels)


@dataclass(frozen=True)
class Cell:
    """A value, what stands beside it (an interval), a second remark (row shuffle), and a mark.

    `mark` is ``inside``, ``closer``, ``farther`` or ``across`` (of the seed band), ``best``, ``pass``, ``miss``,
    ``up``, ``down`` or empty.
    """

    text: str
    note: str = ""
    extra: str = ""
    mark: str = ""

    def plain(self, *, extra: bool = True) -> str:
        """All parts on one line."""
        parts = [self.text, self.note, self.extra if extra else "", _WORDS.get(self.mark, "")]
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Grid:
    """A table with its title and the sentence that says how to read it; the first cell of a row names it."""

    key: str
    title: str
    caption: str
    columns: tuple[TableColumn, ...]
    rows: tuple[tuple[Cell, ...], ...]
    reference_rows: frozenset[int] = frozenset()
    """Rows that others are held against (the seed band, baselines)."""

    def headings(self) -> list[str]:
        """One heading a column, with its group in front."""
        return [f"{column.group} · {column.label}".strip(" ·") for column in self.columns]


def to_text(grid: Grid, width: int) -> str:
    """Plain text for a terminal of `width` columns; a wide table continues below, group by group."""
    cells = [[_one_line(cell.plain(extra=False)) for cell in row] for row in grid.rows]
    sizes = [
        max([len(column.label), *(len(row[index]) for row in cells)])
        for index, column in enumerate(grid.columns)
    ]
    blocks: list[list[int]] = [[]]
    for group in _groups(grid.columns)[1:]:
        used = sizes[0] + sum(sizes[index] + 2 for index in blocks[-1])
        if blocks[-1] and used + sum(sizes[index] + 2 for index in group) > width:
            blocks.append([])
        blocks[-1].extend(group)
    lines = [grid.title]
    for block in blocks:
        lines.append("")
        if any(grid.columns[index].group for index in block):
            lines.append((" " * sizes[0] + _group_line(grid.columns, block, sizes)).rstrip())
        lines.append(_text_line([column.label for column in grid.columns], block, sizes))
        lines.append("-" * (sizes[0] + sum(sizes[index] + 2 for index in block)))
        lines += [_text_line(row, block, sizes) for row in cells]
    return "\n".join(lines)


def _text_line(texts: list[str], block: list[int], sizes: list[int]) -> str:
    return "  ".join([texts[0].ljust(sizes[0]), *(texts[i].rjust(sizes[i]) for i in block)]).rstrip()


def to_markdown(grid: Grid) -> str:
    """A GitHub-flavoured table with its title and caption."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(_markdown(cell).replace("|", "\\|") for cell in cells) + " |"

    body = [line([cell.plain() for cell in row]) for row in grid.rows]
    rule = "|" + "|".join([" --- ", *[" ---: "] * (len(grid.columns) - 1)]) + "|"
    lines = [
        f"### {_markdown(grid.title)}",
        "",
        _markdown(grid.caption),
        "",
        line(grid.headings()),
        rule,
        *body,
        "",
    ]
    return "\n".join(lines)


def markdown_list(title: str, items: Iterable[str]) -> str:
    """A headed Markdown list."""
    return "\n".join([f"### {_markdown(title)}", "", *(f"- {_markdown(item)}" for item in items), ""])


def to_html(grid: Grid) -> str:
    """A real table, every text escaped; scrolls sideways inside its own box on a narrow screen."""
    grouped = any(column.group for column in grid.columns)
    head = []
    if grouped:
        spans = []
        for group in _groups(grid.columns):
            label = html.escape(grid.columns[group[0]].group)
            scope = ' scope="colgroup"' if label else ""
            spans.append(f'<th colspan="{len(group)}"{scope}>{label}</th>')
        head.append(f'<tr class="groups">{"".join(spans)}</tr>')
    head.append(
        "<tr>"
        + "".join(f'<th scope="col">{html.escape(column.label)}</th>' for column in grid.columns)
        + "</tr>"
    )
    body = []
    for index, row in enumerate(grid.rows):
        kind = ' class="reference"' if index in grid.reference_rows else ""
        first = f'<th scope="row">{_html_cell(row[0])}</th>'
        rest = "".join(f"<td{_class(cell)}>{_html_cell(cell)}</td>" for cell in row[1:])
        body.append(f"<tr{kind}>{first}{rest}</tr>")
    caption = html.escape(grid.caption)
    return (
        f'<figure class="table" id="table-{html.escape(grid.key)}"><figcaption><h3>{html.escape(grid.title)}</h3>'
        f'<p>{caption}</p></figcaption><div class="scroll"><table><thead>{"".join(head)}</thead>'
        f"<tbody>{''.join(body)}</tbody></table></div></figure>"
    )


def to_csv(grid: Grid) -> str:
    """One line a row; beside each column its remark (an interval), its second one (row shuffle) and its mark, if any."""
    plain = str.maketrans({"\N{MINUS SIGN}": "-", "–": None})
    parts = ("text", "note", "extra", "mark")
    fields = [
        (index, part)
        for index in range(len(grid.columns))
        for part in parts
        if part == "text" or any(getattr(row[index], part) for row in grid.rows)
    ]
    names = {"text": "", "note": " (note)", "extra": " (remark)", "mark": " (mark)"}
    headings = grid.headings()
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow([headings[index] + names[part] for index, part in fields])
    writer.writerows(
        [getattr(row[index], part).translate(plain) for index, part in fields] for row in grid.rows
    )
    return target.getvalue()


def _class(cell: Cell) -> str:
    return f' class="{html.escape(cell.mark)}"' if cell.mark else ""


def _html_cell(cell: Cell) -> str:
    text = f"<b>{html.escape(cell.text)}</b>" if cell.mark == "best" else html.escape(cell.text)
    if cell.mark in _WORDS and cell.mark != "best":
        word = {"pass": "reached", "miss": "missed"}.get(cell.mark, cell.mark)
        text += f' <span class="mark {cell.mark}">{word}</span>'
    return text + "".join(f"<small>{html.escape(part)}</small>" for part in (cell.note, cell.extra) if part)


def _groups(columns: tuple[TableColumn, ...]) -> list[list[int]]:
    """Indices of neighbouring columns of one group; a column without a group stands alone."""
    groups: list[list[int]] = []
    for index, column in enumerate(columns):
        if groups and column.group and columns[groups[-1][0]].group == column.group:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _group_line(columns: tuple[TableColumn, ...], block: list[int], sizes: list[int]) -> str:
    parts = []
    for group in _groups(tuple(columns[index] for index in block)):
        members = [block[index] for index in group]
        room = sum(sizes[index] + 2 for index in members) - 2
        label = columns[members[0]].group
        parts.append("  " + (label if len(label) <= room else label[: room - 1] + "…").center(room))
    return "".join(parts)


def _markdown(text: str) -> str:
    """Text that Markdown shows as it is: no HTML, one line."""
    return html.escape(_one_line(text), quote=False)


def _one_line(text: str) -> str:
    return " ".join(text.split())


_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\N{MINUS SIGN}": "$-$",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "²": r"$^2$",
    "Δ": r"$\Delta$",
    "·": r"$\cdot$",
    "–": "--",
    "≥": r"$\geq$",
    "…": r"\dots{}",
}


def escape(text: str) -> str:
    """Return text that LaTeX prints as it is, on one line."""
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "" for c in text).split())
    # "--" and "---" would become dashes, "``" and "''" quotation marks, "?`" and "!`" Spanish ones.
    line = re.sub(r"-(?=-)", "-\0", line)
    line = re.sub(r"([`'?!])(?=[`'])", "\\1\0", line)
    return "".join(_SPECIAL.get(character, character) for character in line).replace("\0", "{}")


def to_latex(grid: Grid, label: str) -> str:
    """Return a ``table`` environment for booktabs, every text escaped.

    What stands beside a value (an interval, a remark) stands below it in small type, text is left-aligned, and what is
    wider than the line all the same is scaled to it.

    Parameters
    ----------
    grid : Grid
        Neighbouring columns of one group share a heading.
    label : str
        Name for ``\\ref``: letters, digits, ``:`` and ``-``.
    """
    columns = grid.columns
    groups = [(columns[group[0]].group, group) for group in _groups(columns)]
    sides = "".join(_side(grid, index) for index in range(len(columns)))
    lines = [
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(grid.title)}. {escape(grid.caption)}}}",
        rf"\label{{{label}}}",
        r"\small",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{@{{}}{sides}@{{}}}}",
        r"\toprule",
    ]
    if any(name for name, _ in groups):
        spans = [rf"\multicolumn{{{len(group)}}}{{c}}{{{escape(name)}}}" for name, group in groups]
        lines.append(" & ".join(spans) + r" \\")
        lines += [rf"\cmidrule(lr){{{group[0] + 1}-{group[-1] + 1}}}" for name, group in groups if name]
    lines.append(_row([column.label for column in columns]))
    lines.append(r"\midrule")
    lines += [
        _joined([_stacked(cell, side) for cell, side in zip(row, sides, strict=True)]) for row in grid.rows
    ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])


def _side(grid: Grid, index: int) -> str:
    """``l`` for a column of text, ``r`` for one of numbers."""
    texts = [row[index].text for row in grid.rows if row[index].text not in ("", "–")]
    numbers = sum(text.lstrip("+-−<")[:1].isdigit() for text in texts)
    return "l" if index == 0 or 2 * numbers < len(texts) else "r"


def _stacked(cell: Cell, side: str) -> str:
    """A cell with its remarks below it."""
    mark = _WORDS.get(cell.mark, "")
    first = escape(" ".join(text for text in (cell.text, mark) if text))
    below = [rf"\scriptsize {escape(text)}" for text in (cell.note, cell.extra) if text]
    return rf"\shortstack[{side}]{{{_NEXT.join([first, *below])}}}" if below else first


def _row(cells: list[str]) -> str:
    return _joined([escape(cell) for cell in cells])


def _joined(texts: list[str]) -> str:
    # After "\\" or a rule, "[", "(" or "*" would be read as its option.
    if texts[0][:1] in ("[", "(", "*"):
        texts[0] = "{}" + texts[0]
    return " & ".join(texts) + r" \\"


def terminal_width() -> int:
    """Columns that a table for the terminal may take."""
    return max(60, shutil.get_terminal_size(fallback=(110, 24)).columns)
