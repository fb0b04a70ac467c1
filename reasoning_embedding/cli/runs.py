"""``rembed runs``: which run folders lie below a path, how far they are, what differs, what made them."""

from __future__ import annotations

import shutil
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json, read_json_lines

from ._app import add, make_app
from ._terminal import columns, difference_lines, next_command

app = make_app("List run folders; show one, compare two, follow where one comes from.")

#: A run whose metrics changed less than this many seconds ago is taken to be running.
_FRESH_SECONDS = 120
_INSIDE_A_MODEL = {"checkpoints", "state", "evaluation", "hrsa", "report", "logs", "publish"}
_KINDS = ("run", "experiment", "lineage", "merge", "sweep")


@dataclass(frozen=True)
class FolderState:
    """What the table says about one folder."""

    path: Path
    kind: str
    step: int | None
    loss: float | None
    state: str


def ls(path: Annotated[Path, typer.Argument(help="Where to look.")] = Path("runs")) -> None:
    """List the experiments, sweeps, runs and grown backbones below a path.

    Raises
    ------
    InputError
        If there is no such folder.
    """
    if not path.is_dir():
        raise InputError("no such folder", where=str(path), todo="rembed runs ls FOLDER")
    rows = [("name", "kind", "step", "loss", "state")]
    for found in _folders_below(path):
        step = "-" if found.step is None else str(found.step)
        loss = "-" if found.loss is None else f"{found.loss:.4f}"
        rows.append((str(found.path.relative_to(path)), found.kind, step, loss, found.state))
    if len(rows) == 1:
        typer.echo(f"no run below {path}")
        return
    typer.echo(columns(rows, left=(0, 1, 4)))
    next_command("runs ls")


def show(path: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Show one folder: its state, its last metrics, its checkpoints and its scores.

    Raises
    ------
    InputError
        If the folder is neither a run, an experiment, a sweep nor a grown backbone.
    """
    from reasoning_embedding.checkpoints.layout import RunFolder

    found = _describe(path) if path.is_dir() else None
    if found is None:
        raise InputError(
            "not a run folder", where=str(path), todo="`rembed runs ls` lists what there is below a path"
        )
    folder, width = RunFolder(path), max(60, shutil.get_terminal_size(fallback=(110, 24)).columns)
    typer.echo(f"{path}: {found.kind}, {found.state}")
    for key, value in _last_metrics(folder.metrics).items():
        if value is not None:
            typer.echo(textwrap.fill(f"  {key}: {_shown(value)}", width, subsequent_indent="    "))
    for line in _curves(folder.metrics):
        typer.echo(f"  {line}")
    if steps := folder.steps():
        typer.echo(f"  checkpoints: {' '.join(str(step) for step in steps)}")
        typer.echo(f"  resumable at: {' '.join(str(step) for step in folder.state_steps()) or 'none'}")
    if found.kind == "sweep":
        from reasoning_embedding.reports import summary_table

        typer.echo(summary_table(path))
    if found.kind == "run":
        from reasoning_embedding.checkpoints.scores import read_best, scores_by_step

        scored = scores_by_step(folder)
        for line in _score_lines(scored, (read_best(folder) or {}).get("step")):
            typer.echo(f"  {line}")
        if found.state == "finished":
            next_command("runs show, scored" if scored else "runs show", run=path)
        return
    from reasoning_embedding.checkpoints.scores import load_scores

    for scores in sorted(path.glob("**/evaluation/**/scores.json")):
        typer.echo(f"  {scores.parent.relative_to(path)}: {_main_scores(load_scores(scores.parent))}")


def _shown(value: Any) -> str:
    """Four digits are enough to read; of parts those that are more than nothing."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(part)}" for name, part in value.items() if _shown(part) != "0")
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) >= 0.0005 else "0" if abs(value) < 1e-12 else f"{value:.2g}"
    return str(value)


def _score_lines(scored: Mapping[int, dict[str, Any]], best: int | None) -> list[str]:
    """Scores of a run's steps as a table, the best step marked: the one selected, else the one of the highest mean."""
    if not scored:
        return []
    steps = {
        step: {task["task"]: task["main_score"] for task in record["tasks"]}
        for step, record in scored.items()
    }
    tasks = list(dict.fromkeys(task for scores in steps.values() for task in scores))
    whole = {
        step: sum(scores.values()) / len(scores)
        for step, scores in steps.items()
        if scores.keys() == set(tasks)
    }
    if best is None and len(whole) > 1:
        best = max(whole, key=lambda step: whole[step])
    rows: list[tuple[str, ...]] = [("scored step", *tasks, "")]
    for step, scores in sorted(steps.items()):
        cells = [f"{scores[task]:.4f}" if task in scores else "-" for task in tasks]
        rows.append((str(step), *cells, "best" if step == best else ""))
    return columns(rows, left=(len(tasks) + 1,)).splitlines()


#: Heights of a curve's columns, and how many columns it has.
_BLOCKS = "▁▂▃▄▅▆▇█"
_COLUMNS = 48


def _curves(metrics: Path) -> list[str]:
    """Curves of loss, accuracy and gradient norm over the steps: one line each, with first, last and best value."""
    records = [record for record in read_json_lines(metrics, damaged=lambda _: None) if "loss" in record]
    if len(records) < 2:
        return []
    lines = [("curve", "first", "last", f"steps {records[0]['step']} to {records[-1]['step']}")]
    for key, best in (("loss", min), ("accuracy", max), ("grad_norm", None)):
        points = [
            (record[key], record["step"]) for record in records if isinstance(record.get(key), int | float)
        ]
        if len(points) < 2:
            continue
        values = [value for value, _ in points]
        at = (
            ""
            if best is None
            else f"  best {best(values):.4g} at step {points[values.index(best(values))][1]}"
        )
        lines.append((key, f"{values[0]:.4g}", f"{values[-1]:.4g}", _curve(values) + at))
    return columns(lines, left=(0, 3)).splitlines()


def _curve(values: Sequence[float]) -> str:
    """Draw values as blocks; where there are more than columns, a column is the mean of its share."""
    count = min(len(values), _COLUMNS)
    edges = [round(place * len(values) / count) for place in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    if high == low:
        return _BLOCKS[0] * count
    return "".join(_BLOCKS[round((mean - low) / (high - low) * (len(_BLOCKS) - 1))] for mean in means)


def _main_scores(scores: dict[str, Any]) -> str:
    return ", ".join(f"{task['task']} {task['main_score']:.4f}" for task in scores["tasks"])


def diff(
    a: Annotated[Path, typer.Argument(help="A run folder.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="Another one.", metavar="B")],
    paired: Annotated[
        bool, typer.Option("--paired", help="Refuse runs that differ in more than backbone, seed and name.")
    ] = False,
) -> None:
    """Print what differs between two runs: configuration, data, and the ids their tokenizers give.

    Raises
    ------
    InputError
        If a folder holds no run, the two are of different kinds, or with --paired if they are no pair.
    """
    from reasoning_embedding.config.resolved import unpaired

    found = _differences(a, b)
    typer.echo("\n".join(difference_lines(found)) or "no difference")
    if paired and (others := [key for key, _, _ in unpaired(found)]):
        raise InputError(
            f"not a pair: {', '.join(others[:8])} differ too",
            where=f"{a} and {b}",
            todo="train both with one recipe on the same data; only backbone and seed may differ",
        )


def _differences(a: Path, b: Path) -> list[tuple[str, Any, Any]]:
    from reasoning_embedding.checkpoints.layout import RunFolder
    from reasoning_embedding.config.resolved import differences

    kinds: list[str] = []
    sides: list[dict[str, Any]] = []
    for path in (a, b):
        folder = RunFolder(path)
        resolved = _read(folder.config_json)
        if resolved is None:
            todo = "`rembed runs ls` lists what there is below a path"
            raise InputError("no run lies here", where=str(path), todo=todo)
        kinds.append(str(resolved.get("kind")))
        manifest = _read(folder.manifest) or {}
        facts = {key: manifest[key] for key in ("data_fingerprint", "input_contract") if key in manifest}
        sides.append(resolved | ({"manifest": facts} if facts else {}))
    if kinds[0] != kinds[1]:
        raise InputError(f"kinds {kinds[0]} and {kinds[1]} cannot be compared", where=f"{a} and {b}")
    return differences(*sides)


def lineage(path: Annotated[Path, typer.Argument(help="A checkpoint, a run or a model folder.")]) -> None:
    """Print what a model was made from, parent by parent; a merge has several.

    Raises
    ------
    InputError
        If the folder holds no model.
    """
    from reasoning_embedding.checkpoints.layout import ExperimentFolder, RunFolder

    steps = RunFolder(path).steps() if path.is_dir() else []
    folder = RunFolder(path).checkpoint(steps[-1]) if steps else path
    record = _read(folder / "provenance.json")
    if record is None:
        raise InputError(
            "no record of what made this",
            where=str(path),
            todo="name a checkpoint, a run with one, a merge or a grown backbone",
        )
    from reasoning_embedding.checkpoints.provenance import ancestors

    typer.echo(f"{folder}  {record.get('kind', 'unknown')}  {str(record.get('content_hash', ''))[:12]}")
    around = (ExperimentFolder(parent).lineage for parent in folder.resolve().parents)
    for ancestor in ancestors(record, next((place for place in around if place.is_dir()), None)):
        parts = [ancestor.name, ancestor.kind, ancestor.revision, (ancestor.content_hash or "")[:12]]
        typer.echo("  " * ancestor.depth + "from " + "  ".join(part for part in parts if part))


def _folders_below(path: Path) -> Iterator[FolderState]:
    found = _describe(path)
    if found:
        yield found
    for folder in sorted(path.iterdir()):
        hidden = folder.name.startswith(".") or folder.name in _INSIDE_A_MODEL
        if folder.is_dir() and not folder.is_symlink() and not hidden:
            yield from _folders_below(folder)


def _describe(path: Path) -> FolderState | None:
    from reasoning_embedding.checkpoints.layout import RunFolder

    folder = RunFolder(path)
    config, provenance = _read(folder.config_json), _read(path / "provenance.json")
    metrics = _last_metrics(folder.metrics)
    if config is None and provenance is None:
        return None
    if config is None or config.get("kind") not in _KINDS:
        kind = str((provenance or {}).get("kind", "model"))
        return FolderState(
            path, kind, metrics.get("step"), metrics.get("loss"), "finished" if provenance else "stopped"
        )
    if config["kind"] == "sweep":
        return FolderState(path, "sweep", None, None, _sweep_state(path))
    if config["kind"] != "run":
        state = "finished" if folder.page.exists() else "unfinished"
        return FolderState(path, config["kind"], None, None, state)
    steps = folder.steps()
    planned = (_read(folder.manifest) or {}).get("steps")
    step = metrics.get("step", steps[-1] if steps else None)
    return FolderState(path, "run", step, metrics.get("loss"), _state(folder.metrics, steps, planned))


def _sweep_state(path: Path) -> str:
    """How many runs have their last step, read without what needs torch."""
    from reasoning_embedding.checkpoints.layout import SweepFolder

    folder = SweepFolder(path)
    runs = [folder.run(entry["name"]) for entry in (_read(folder.index) or {}).get("runs", [])]
    ended = sum((_read(run.manifest) or {}).get("steps") in run.steps() for run in runs)
    return "finished" if ended == len(runs) else f"{ended} of {len(runs)} finished"


def _state(metrics: Path, steps: list[int], planned: int | None) -> str:
    if planned is not None and steps and steps[-1] >= planned:
        return "finished"
    of = f" of {planned}" if planned is not None else ""
    if metrics.exists() and time.time() - metrics.stat().st_mtime < _FRESH_SECONDS:
        return f"running{of}"
    return f"stopped{of}"


def _last_metrics(path: Path) -> dict[str, Any]:
    """The last whole line of a log; what is damaged must not stop a list of folders."""
    return (read_json_lines(path, damaged=lambda _: None) or [{}])[-1]


def _read(path: Path) -> dict[str, Any] | None:
    """What a file holds; None where it is not there or damaged, which must not stop a list of folders."""
    try:
        return read_json(path)
    except (FileNotFoundError, NotADirectoryError, InputError):
        return None


for _verb in (ls, show, diff, lineage):
    add(app, _verb, _verb.__name__)
