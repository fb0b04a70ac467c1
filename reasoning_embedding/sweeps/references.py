"""What ``lineage:STAGE``, ``run:NAME@STEP`` and paths point to."""

from __future__ import annotations

from pathlib import Path

from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.errors import InputError


def resolve(reference: str, folder: Path) -> Path:
    """Return the model folder a reference points to within an experiment.

    Parameters
    ----------
    reference : str
        ``lineage:STAGE``, ``run:NAME@STEP`` (STEP a number, ``first`` or ``last``) or a path.
    folder : Path
        The experiment's folder.

    Raises
    ------
    InputError
        If there is no such model.
    """
    scheme, _, rest = reference.partition(":")
    if scheme == "lineage":
        return _existing(folder / "lineage" / rest, reference)
    if scheme == "run":
        name, _, step = rest.partition("@")
        run = RunFolder(folder / "runs" / name)
        return run.checkpoint(pick_step(run, step or "last", reference))
    return _existing(Path(reference), reference)


def pick_step(run: RunFolder, step: str, reference: str) -> int:
    """Turn ``first``, ``last`` or a number into a step whose checkpoint is on disk.

    Raises
    ------
    InputError
        If the run has no checkpoint, or not that one.
    """
    steps = run.steps()
    wanted = {"first": steps[:1], "last": steps[-1:]}.get(step)
    if wanted is None:
        wanted = [int(step)] if step.isdigit() and int(step) in steps else []
    if not wanted:
        raise InputError(
            f"{reference!r} names no checkpoint", where=str(run.path), todo=f"steps there: {steps or 'none'}"
        )
    return wanted[0]


def _existing(path: Path, reference: str) -> Path:
    if not path.is_dir():
        raise InputError(f"{reference!r} names no model", where=str(path), todo="grow or train it first")
    return path
