"""A table as LaTeX."""

from __future__ import annotations

import re

from .grid import Grid

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

    Parameters
    ----------
    grid : Grid
        Neighbouring columns of one group share a heading.
    label : str
        Name for ``\\ref``: letters, digits, ``:`` and ``-``.
    """
    columns = grid.columns
    groups: list[tuple[str, int]] = []
    for column in columns:
        if groups and column.group and groups[-1][0] == column.group:
            groups[-1] = (column.group, groups[-1][1] + 1)
        else:
            groups.append((column.group, 1))
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(grid.title)}. {escape(grid.caption)}}}",
        rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
        r"\toprule",
    ]
    if any(name for name, _ in groups):
        spans = [rf"\multicolumn{{{width}}}{{c}}{{{escape(name)}}}" for name, width in groups]
        lines.append(" & ".join(spans) + r" \\")
        start = 1
        for name, width in groups:
            if name:
                lines.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
            start += width
    lines.append(_row([column.label for column in columns]))
    lines.append(r"\midrule")
    lines += [_row([cell.plain() for cell in row]) for row in grid.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _row(cells: list[str]) -> str:
    texts = [escape(cell) for cell in cells]
    # After "\\" or a rule, "[", "(" or "*" would be read as its option.
    if texts[0][:1] in ("[", "(", "*"):
        texts[0] = "{}" + texts[0]
    return " & ".join(texts) + r" \\"
