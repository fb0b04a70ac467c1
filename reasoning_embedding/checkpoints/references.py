"""What ``lineage:STAGE``, ``run:NAME@STEP`` and paths point to."""

from __future__ import annotations

import json
from pathlib import Path

from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.errors import InputError


def resolve(reference: str, folder: Path) -> Path:
    """Return the model folder a reference points to within an experiment.

    Parameters
    ----------
    reference : str
        ``lineage:STAGE``, ``lineage:STAGE@STEP``, ``run:NAME@STEP`` (STEP a number, ``first``, ``last`` or, of
        a run, ``best``) or a path.
    folder : Path
        The experiment's folder.

    Raises
    ------
    InputError
        If there is no such model.
    """
    scheme, _, rest = reference.partition(":")
    name, _, step = rest.partition("@")
    if scheme == "lineage" and not step:
        return _existing(folder / "lineage" / name, reference)
    if scheme in ("lineage", "run"):
        series = series_folder(f"{scheme}:{name}", folder)
        return series.checkpoint(pick_step(series, step or "last", reference))
    return _existing(Path(reference), reference)


def series_folder(name: str, folder: Path) -> RunFolder:
    """Return the folder of checkpoints that ``NAME`` or ``run:NAME`` (a run) or ``lineage:STAGE`` points to."""
    scheme, _, rest = name.rpartition(":")
    return RunFolder(folder / ("lineage" if scheme == "lineage" else "runs") / rest)


def pick_step(run: RunFolder, step: str, reference: str) -> int:
    """Turn ``first``, ``last``, ``best`` or a number into a step whose checkpoint is on disk.

    Raises
    ------
    InputError
        If the run has no checkpoint, or not that one, or was not scored while it trained.
    """
    steps = run.steps()
    if step == "best":
        step = str(_best_step(run, reference))
    wanted = {"first": steps[:1], "last": steps[-1:]}.get(step)
    if wanted is None:
        wanted = [int(step)] if step.isdigit() and int(step) in steps else []
    if not wanted:
        raise InputError(
            f"{reference!r} names no checkpoint", where=str(run.path), todo=f"steps there: {steps or 'none'}"
        )
    return wanted[0]


def _best_step(run: RunFolder, reference: str) -> int:
    """Step that the run's own evaluation chose."""
    try:
        step = json.loads(run.best.read_text(encoding="utf-8"))["step"]
    except FileNotFoundError as error:
        raise InputError(
            f"{reference!r}: this run was not scored while it trained",
            where=str(run.best),
            todo="give the run an 'evaluation' section, or name a step",
        ) from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(
            f"{reference!r}: the file does not name a step", where=str(run.best), todo="name a step"
        ) from error
    return int(step)


def _existing(path: Path, reference: str) -> Path:
    if not path.is_dir():
        raise InputError(f"{reference!r} names no model", where=str(path), todo="grow or train it first")
    return path
