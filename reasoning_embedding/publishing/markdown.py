"""Markdown from texts that users wrote: nothing in them is taken for markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .masking import public


def text(value: object, length: int = 200) -> str:
    """Escape a value for running text or a cell: one line, no markup, secrets and absolute paths gone."""
    line = " ".join(public(str(value)).split())
    line = line if len(line) <= length else line[: length - 1] + "…"
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_\[\]|#~!$])", r"\\\1", line)
    # A bare address would become a link; its dot or slashes are what the Hub's renderer looks for.
    return re.sub(
        r"(?i)\b(https?|ftp)://|\b(www)\.", lambda m: f"{m[1] or m[2]}&#58;//" if m[1] else "www&#46;", line
    )


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; every cell is escaped, numbers are aligned right by their column's first row."""
    rows = [list(row) for row in rows]
    sides = ["---:" if rows and isinstance(cell, (int, float)) else "---" for cell in (rows or [header])[0]]
    lines = [_line(header), _line(sides), *(_line([text(_shown(cell)) for cell in row]) for row in rows)]
    return "\n".join(lines)


def fenced(code: str, language: str = "") -> str:
    """Return a Markdown block that no text inside can close."""
    longest = max((len(run) for run in re.findall(r"`{3,}", code)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(value: object) -> object:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else value
