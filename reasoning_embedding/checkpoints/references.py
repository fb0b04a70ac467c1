"""What a model reference points to: the one place where names of models become models.

The grammar is in :mod:`reasoning_embedding.config.references`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from reasoning_embedding.config.references import Reference, is_hub_id, parse
from reasoning_embedding.errors import InputError

from .layout import ExperimentFolder, RunFolder
from .provenance import content_hash, read_provenance
from .scores import read_best

_FORMS = "name a model's folder, RUN@STEP, or OWNER/NAME@REVISION of the Hub"


@dataclass(frozen=True)
class ResolvedModel:
    """A model that a reference points to.

    Attributes
    ----------
    reference : str
        What the user calls it.
    path : Path or str
        Its folder, or its id on the Hub.
    revision : str or None
        Branch, tag or commit of a Hub id.
    run : RunFolder or None
        The run (or stage of a lineage) that it was named as a step of.
    step : int or None
        Its step there.
    """

    reference: str
    path: Path | str
    revision: str | None = None
    run: RunFolder | None = None
    step: int | None = None

    def __post_init__(self) -> None:
        """Refuse a revision of a folder: it would be written down and never looked at."""
        if self.revision is not None and isinstance(self.path, Path):
            raise InputError(
                f"a folder has no revisions, so {self.revision!r} names nothing",
                where=self.reference,
                todo=f"name the folder alone, {self.path}, or OWNER/NAME@REVISION of the Hub",
            )

    @property
    def folder(self) -> Path:
        """Its folder.

        Raises
        ------
        InputError
            If it is a model of the Hub, which has none here.
        """
        if isinstance(self.path, Path):
            return self.path
        raise InputError(
            f"{self.reference!r} names no model on this machine",
            where=str(Path(self.path).resolve()),
            todo=f"train it first, or repair the path; of a model of the Hub: hf download {self.path}",
        )

    @cached_property
    def files(self) -> Path:
        """The folder that its files lie in: its own, or that of the copy which the Hub's client keeps; downloads it.

        Raises
        ------
        InputError
            If the Hub has no such model or revision, or does not let this user have it.
        SetupError
            If the Hub cannot be reached and no copy is kept.
        """
        from .hub import download

        if isinstance(self.path, Path):
            return self.path
        return download(self.path, self.revision, where=self.reference)

    @property
    def commit(self) -> str | None:
        """Commit of a Hub model that :attr:`files` holds; None for a folder."""
        return None if isinstance(self.path, Path) else self.files.name

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What a model that was made here remembers; empty for a model of others."""
        return (read_provenance(self.path) if isinstance(self.path, Path) else None) or {}

    @cached_property
    def content(self) -> str | None:
        """What it is known by when it is met again: the hash of its files, or its id with the revision.

        None for a Hub id without a revision: the Hub may hand out another model tomorrow.

        Raises
        ------
        InputError
            If the folder holds no model files.
        """
        if isinstance(self.path, Path):
            return content_hash(self.path)
        return f"{self.path}@{self.revision}" if self.revision else None


def resolve(reference: str, within: Path | None = None) -> ResolvedModel:
    """Return the model that a reference points to.

    Parameters
    ----------
    reference : str
        A form of :mod:`reasoning_embedding.config.references`.
    within : Path, optional
        The experiment's folder, where ``run:`` and ``lineage:`` are looked up; default: the current folder.

    Raises
    ------
    InputError
        If there is no such model, run or step, or it is a run and the step is missing.
    """
    parsed = parse(reference)
    if parsed.kind == "lineage" and not parsed.at:
        folder = _named(parsed, within).path
        if not folder.is_dir():
            raise InputError(f"{reference!r} names no model", where=str(folder), todo="grow it first")
        return ResolvedModel(reference, folder)
    if parsed.kind != "path":
        return step_of(_named(parsed, within), parsed.at or "last", reference)
    folder = Path(reference)
    if _is_run(folder):
        raise InputError(
            f"{reference!r} is a run, not a model", where=reference, todo=f"name a step: {reference}@last"
        )
    if folder.is_dir():
        return ResolvedModel(reference, folder)
    if parsed.at is not None and RunFolder(Path(parsed.name)).checkpoints.is_dir():
        return step_of(RunFolder(Path(parsed.name)), parsed.at, reference)
    looks_like_a_step = parsed.at is not None and (
        parsed.at.isdigit() or parsed.at in ("first", "last", "best")
    )
    of_hub = is_hub_id(parsed.name)
    if parsed.at is not None and not looks_like_a_step and Path(parsed.name).is_dir():
        return ResolvedModel(reference, Path(parsed.name), revision=parsed.at)  # which refuses itself
    if looks_like_a_step and (not of_hub or Path(parsed.name).parent.is_dir()):
        raise InputError(
            f"{reference!r} names no run", where=parsed.name, todo="train it first, or repair the path"
        )
    if of_hub:
        return ResolvedModel(reference, parsed.name, revision=parsed.at or None)
    raise InputError(f"{reference!r} names no model", where=str(folder.resolve()), todo=_FORMS)


def series_of_steps(reference: str, within: Path | None = None) -> RunFolder | None:
    """Return the folder of checkpoints that a reference without a step names, or None where it names one model.

    ``RUN`` and ``run:NAME`` name all steps of a run, ``lineage:STAGE`` those that the stage kept. Whether the
    run of ``run:NAME`` is there, and has steps, is left to the caller.
    """
    parsed = parse(reference)
    if parsed.kind == "path":
        return RunFolder(Path(reference)) if _is_run(Path(reference)) else None
    return None if parsed.at is not None else _named(parsed, within)


def step_of(run: RunFolder, step: str, reference: str) -> ResolvedModel:
    """Return a step of a run: ``first``, ``last``, ``best`` or a number.

    Raises
    ------
    InputError
        As :func:`pick_step`.
    """
    number = pick_step(run, step, reference)
    return ResolvedModel(reference, run.checkpoint(number), run=run, step=number)


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
    best = read_best(run)
    if best is None:
        raise InputError(
            f"{reference!r}: this run was not scored while it trained",
            where=str(run.best),
            todo="give the run an 'evaluation' section, or name a step",
        )
    return best["step"]


def _named(reference: Reference, within: Path | None) -> RunFolder:
    """Folder of the run or stage of that name: in the experiment, or for a run beside its siblings or at that path."""
    home, name = ExperimentFolder(within or Path()), reference.name
    if reference.kind == "lineage":
        return home.stage(name)
    first = home.run(name)
    # A bare name is looked up near by only: a folder of that name in the current folder may be anything.
    others = [RunFolder(home.path / name), *([RunFolder(Path(name))] if "/" in name else [])]
    return next((run for run in (first, *others) if run.checkpoints.is_dir()), first)


def _is_run(folder: Path) -> bool:
    """Whether a folder holds checkpoints and is no model itself, as a stage that kept steps is."""
    return RunFolder(folder).checkpoints.is_dir() and not (folder / "config.json").is_file()
