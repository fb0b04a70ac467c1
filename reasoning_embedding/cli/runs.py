"""``rembed runs``: which run folders lie below a path, and how far they are."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from reasoning_embedding.errors import InputError

from ._app import add, make_app
from ._say import columns

app = make_app("List run folders and show one.")

#: A run whose metrics changed less than this many seconds ago is taken to be running.
_FRESH_SECONDS = 120
_INSIDE_A_MODEL = {"checkpoints", "state", "evaluation", "hrsa", "report", "logs", "publish"}


@dataclass(frozen=True)
class Found:
    """What the table says about one folder."""

    path: Path
    kind: str
    step: int | None
    loss: float | None
    state: str


def ls(path: Annotated[Path, typer.Argument(help="Where to look.")] = Path("runs")) -> None:
    """List the experiments, runs and grown backbones below a path.

    Raises
    ------
    InputError
        If there is no such folder.
    """
    if not path.is_dir():
        raise InputError("no such folder", where=str(path), todo="rembed runs ls FOLDER")
    rows = [("name", "kind", "step", "loss", "state")]
    for found in _below(path):
        step = "-" if found.step is None else str(found.step)
        loss = "-" if found.loss is None else f"{found.loss:.4f}"
        rows.append((str(found.path.relative_to(path)), found.kind, step, loss, found.state))
    if len(rows) == 1:
        typer.echo(f"no run below {path}")
        return
    typer.echo(columns(rows, left=(0, 1, 4)))


def show(path: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Show one folder: its state, its last metrics, its checkpoints and its scores.

    Raises
    ------
    InputError
        If the folder is neither a run, an experiment nor a grown backbone.
    """
    from reasoning_embedding.checkpoints.layout import RunFolder

    found = _describe(path) if path.is_dir() else None
    if found is None:
        raise InputError(
            "not a run folder", where=str(path), todo="`rembed runs ls` lists what there is below a path"
        )
    folder = RunFolder(path)
    typer.echo(f"{path}: {found.kind}, {found.state}")
    for key, value in (_last_metrics(folder.metrics) or {}).items():
        typer.echo(f"  {key}: {value}")
    if steps := folder.steps():
        typer.echo(f"  checkpoints: {' '.join(str(step) for step in steps)}")
        typer.echo(f"  resumable at: {' '.join(str(step) for step in folder.state_steps()) or 'none'}")
    for scores in sorted(path.glob("**/evaluation/**/scores.json")):
        tasks = (_read(scores) or {}).get("tasks", [])
        line = ", ".join(f"{task['task']} {task['main_score']:.4f}" for task in tasks)
        typer.echo(f"  {scores.parent.relative_to(path)}: {line}")


def _below(path: Path) -> Iterator[Found]:
    found = _describe(path)
    if found:
        yield found
    for folder in sorted(path.iterdir()):
        if (
            folder.is_dir()
            and not folder.is_symlink()
            and folder.name not in _INSIDE_A_MODEL
            and not folder.name.startswith(".")
        ):
            yield from _below(folder)


def _describe(path: Path) -> Found | None:
    from reasoning_embedding.checkpoints.layout import RunFolder

    folder = RunFolder(path)
    config, provenance = _read(folder.config_json), _read(path / "provenance.json")
    metrics = _last_metrics(folder.metrics) or {}
    if config is None and provenance is None:
        return None
    if config is None or config.get("kind") not in ("run", "experiment", "lineage", "merge"):
        kind = str((provenance or {}).get("kind", "model"))
        return Found(
            path, kind, metrics.get("step"), metrics.get("loss"), "finished" if provenance else "stopped"
        )
    if config["kind"] != "run":
        state = "finished" if (path / "report" / "index.html").exists() else "unfinished"
        return Found(path, config["kind"], None, None, state)
    steps = folder.steps()
    planned = (_read(folder.manifest) or {}).get("steps")
    step = metrics.get("step", steps[-1] if steps else None)
    return Found(path, "run", step, metrics.get("loss"), _state(folder.metrics, steps, planned))


def _state(metrics: Path, steps: list[int], planned: int | None) -> str:
    if planned is not None and steps and steps[-1] >= planned:
        return "finished"
    of = f" of {planned}" if planned is not None else ""
    if metrics.exists() and time.time() - metrics.stat().st_mtime < _FRESH_SECONDS:
        return f"running{of}"
    return f"stopped{of}"


def _last_metrics(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    # Backwards, because a killed run may leave half a line at the end.
    for line in reversed(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        value = _parsed(line)
        if value:
            return value
    return None


def _read(path: Path) -> dict[str, Any] | None:
    return _parsed(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


for _verb in (ls, show):
    add(app, _verb, _verb.__name__)
