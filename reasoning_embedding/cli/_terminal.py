"""The terminal of a verb: lines while something long runs, columns, and libraries kept silent."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import typer


def speaker() -> Callable[[str], None]:
    """Return a function that prints a line after the seconds since the start."""
    started = time.perf_counter()

    def say(line: str) -> None:
        typer.echo(f"{time.perf_counter() - started:6.0f} s  {line}")

    return say


#: Whether the line after a verb's end is left out (`rembed --quiet`).
_quiet = False


def be_quiet() -> None:
    """Print no next command in this process."""
    global _quiet
    _quiet = True


#: What a user is likely to type after a verb; what is in braces is known when it ends.
NEXT = {
    "analyze": "rembed track RUN",
    "config check": "rembed config check --data {config}",
    "config check --data": "rembed train {config}",
    "data filter": "rembed data stats {rows}",
    "data mine": "rembed data filter {rows} -o CLEAN.jsonl.gz --near-duplicates",
    "data prepare": "rembed train {config}",
    "data score": "rembed train RUN.yaml, with loss.distillation in it",
    "data stats": "rembed init {rows} MODEL",
    "doctor": "rembed init DATA MODEL, or rembed quickstart",
    "embed": "rembed embed {model} QUERIES -o queries.npy",
    "evaluate": "rembed report {run}",
    "experiment": "rembed report {folder} --table",
    "grow": "rembed train RUN.yaml backbone.path={folder}",
    "init": "rembed config check --data {config}, then rembed train {config}",
    "merge": "rembed publish MODEL --help",
    "plan": "rembed train {config}",
    "publish": "the same command with --push",
    "publish --push": "rembed evaluate {repo}@main -t TASK_FOLDER",
    "report": "rembed publish RUN --repo OWNER/NAME",
    "runs ls": "rembed runs show RUN",
    "runs show": "rembed evaluate {run} -t TASK_FOLDER",
    "runs show, scored": "rembed report {run}",
    "sweep": "rembed report {folder}",
    "track": "rembed report RUN",
    "train": "rembed runs show {run}",
}


def next_command(verb: str, **known: object) -> None:
    """Say what a user is likely to type next: one line beside the output of the first rank, on a terminal only."""
    if not _quiet and sys.stderr.isatty() and os.environ.get("RANK", "0") == "0":
        typer.echo(f"next: {NEXT[verb].format(**known)}", err=True)


def columns(rows: Sequence[Sequence[str]], left: Collection[int]) -> str:
    """Lay rows out as columns: those of `left` start at their left edge, the others end at their right.

    Not a rich table: that one cuts names where the terminal is narrow or the output is a pipe.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def difference_lines(found: Sequence[tuple[str, Any, Any]]) -> list[str]:
    """Write what differs as lines ``key: old -> new``, values as JSON."""
    from reasoning_embedding.config.resolved import ABSENT

    def show(value: Any) -> str:
        return value if value is ABSENT else json.dumps(value, ensure_ascii=False)

    return [f"{key}: {show(old)} -> {show(new)}" for key, old, new in found]


def silence_libraries() -> None:
    """Keep the progress bars and advice of libraries out of a verb's own output."""
    from reasoning_embedding.isolation import quiet_deepspeed, serial_tokenizers

    quiet_deepspeed()
    serial_tokenizers()
    os.environ.setdefault("TQDM_DISABLE", "1")
