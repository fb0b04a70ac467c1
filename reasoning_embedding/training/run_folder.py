"""A run folder when it is opened: which step to go on from, and what it says of the run."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder, read_provenance, versions
from reasoning_embedding.checkpoints.embedder import verify_content
from reasoning_embedding.checkpoints.run_records import read_manifest, read_settings
from reasoning_embedding.checkpoints.scores import write_best
from reasoning_embedding.checkpoints.state import read_record, verify_state
from reasoning_embedding.distributed import World, max_over_ranks
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_write, hash_file, read_json_lines, write_json
from reasoning_embedding.progress import Report
from reasoning_embedding.secrets import masked, sealed, unsealed

from .metrics import cut_log
from .optimizers import learning_rate_at
from .selection import best_so_far

if TYPE_CHECKING:
    from .memory_mode import MemoryMode
    from .setup import PreparedRun


@dataclass(frozen=True)
class StartingPoint:
    """Where a run begins or goes on.

    Attributes
    ----------
    settings : config.RunConfig
        The run, with the defaults it was begun with where those of today are others.
    step : int
        0 for a new run, else the step whose state it goes on from.
    data : str or None
        Fingerprint of the rows that it was trained on, and after a ``+`` of a teacher's vectors, where that is known.
    schedule : dict or None
        What its rates came from, where that is known; see :func:`schedule_record`.
    rescored : bool
        Whether its ``evaluation`` is another than the one that its log was scored with.
    """

    settings: config.RunConfig
    step: int = 0
    data: str | None = None
    schedule: dict[str, Any] | None = None
    rescored: bool = False

    def check_data(self, rows: str, teacher: str | None = None) -> None:
        """Refuse rows, or a teacher's vectors, that are not those the run was trained on.

        Raises
        ------
        InputError
            If the fingerprint of the table or of the vectors is another one.
        """
        if self.data is None:
            return
        rows_then, _, teacher_then = self.data.partition("+")
        if teacher is not None and teacher_then != teacher:
            raise InputError(
                "the teacher's vectors are not those that the run there was trained on",
                where="loss.teacher_vectors.folder",
                todo="give it the folder it began with, or choose another name",
            )
        if rows_then != rows:
            raise InputError(
                "the rows are not those that the run there was trained on",
                where="data.sources",
                todo="give it the files it began with, or choose another name",
            )

    def check_schedule(self, steps: int) -> None:
        """Refuse a schedule that would have given the steps that were taken other rates.

        Raises
        ------
        InputError
            Naming the first step whose rate is another, and how a run is made longer.
        """
        if self.schedule is None:
            return
        old, training = self.schedule, self.settings.training
        before = training.model_copy(update={key: old[key] for key in _RATES})
        for step in range(1, self.step + 1):
            was, is_now = (
                learning_rate_at(step, old["steps"], before),
                learning_rate_at(step, steps, training),
            )
            if not math.isclose(was, is_now, rel_tol=1e-9):
                raise InputError(
                    f"step {step} was taken at a learning rate of {was:.3g}; by this schedule of {steps} steps "
                    f"it would be {is_now:.3g}",
                    where="training",
                    todo=f"to add steps to a run of {old['steps']}, keep its schedule and say where it begins "
                    f"again: training.restarts: [{old['steps']}]",
                )


#: What of ``training`` decides a step's rate, beside the number of steps.
_RATES = ("learning_rate", "schedule", "warmup_ratio", "final_learning_rate", "restarts")


def schedule_record(training: config.Training, steps: int) -> dict[str, Any]:
    """Return what the rates of a run come from, as JSON values."""
    return {"steps": steps, **training.model_dump(mode="json", include=set(_RATES))}


def starting_point(
    run: RunFolder, settings: config.RunConfig, world: World, *, resume: bool, report: Report
) -> StartingPoint:
    """Return where to go on (step 0 for a new run), after checking that the folder fits the config.

    The newest step whose checkpoint and state are whole and belong to each other and to this run is taken; a newer
    one that is not is said.

    Parameters
    ----------
    run : RunFolder
        Its folder.
    settings : config.RunConfig
        What is to be trained.
    world : World
        The job; all ranks call together.
    resume : bool
        Whether a run that is there goes on.
    report : callable
        Takes what is said.

    Raises
    ------
    InputError
        If the folder holds a run and `resume` is false, the run there had other settings, or none of its states can
        be used.
    """
    steps = run.steps()
    if not steps:
        return StartingPoint(settings)
    if not resume:
        raise InputError(
            f"this run folder already holds steps {steps[0]} to {steps[-1]}",
            where=str(run.path),
            todo="go on with --resume, or choose another name",
        )
    saved = _saved_settings(run, settings, report)
    changed: list[str] = []
    rescored = False
    if saved is not None:
        settings, kept = config.as_begun(saved, settings)
        if kept:
            report(f"the run there was begun with {', '.join(kept)}, a default of then; it keeps it")
        found = config.changed_since(saved, settings)
        rescored = any(config.is_scoring(key) for key in found)
        changed = [key for key in found if not config.is_scoring(key) and not _may_change(key, run, settings)]
        if other := [key for key in changed if not config.is_schedule(key) and not config.is_place(key)]:
            _refuse_settings(run, other)
    problems = []
    for step in sorted(set(run.state_steps()) & set(steps), reverse=True):
        start, problem = _look_at(run, step, settings, world, known=saved is not None)
        if start is None:
            problems.append(f"step {step}: {problem}")
            report(f"step {step} is left out: {problem}")
            continue
        unproved = [
            key for key in changed if (start.schedule if config.is_schedule(key) else start.data) is None
        ]
        if unproved:
            _refuse_settings(run, unproved)
        if problem:
            report(problem)
        if problems:
            report(f"the run goes on from step {step}, the newest that is whole")
        return replace(start, rescored=settings.evaluation is not None and (rescored or start.rescored))
    if problems:
        raise InputError(
            f"no saved state can be used; {'; '.join(problems)}",
            where=str(run.path),
            todo=f"restore the files; or delete {run.states} and resume: the run begins again at step 0",
        )
    if steps[-1] > 0:
        report(f"no state of steps 0 to {steps[-1]} is there: the run begins again at step 0")
    return StartingPoint(settings)


def _saved_settings(run: RunFolder, now: config.RunConfig, report: Report) -> dict[str, Any] | None:
    """Return the settings the run was begun with, or None where the file is gone or damaged, which is said."""
    try:
        if saved := read_settings(run):
            return unsealed(saved, config.resolved_json(now), run.path)
        problem = "is not there"
    except InputError as error:
        problem = f"cannot be used ({error.what})"
    report(f"{run.config_json.name} {problem}; settings are held to what the saved states recorded")
    return None


def _may_change(key: str, run: RunFolder, settings: config.RunConfig) -> bool:
    """Whether a backbone lies elsewhere but is the same model."""
    if key != "backbone.path":
        return False
    record = first_record(run).get("parent") or {}
    now = parent_record(settings.backbone).get("content_hash")
    return now is not None and record.get("content_hash") == now


def first_record(run: RunFolder) -> dict[str, Any]:
    """Return what the first checkpoint that can be read says of itself."""
    for step in run.steps():
        with contextlib.suppress(InputError):
            return read_provenance(run.checkpoint(step)) or {}
    return {}


def _refuse_settings(run: RunFolder, changed: list[str]) -> NoReturn:
    if all(key.startswith("loss.terms") for key in changed):
        raise InputError(
            f"the run there had other terms of its own, or their text has changed ({', '.join(changed)})",
            where=str(run.config_json),
            todo="resume with the functions it began with (those of a Python program: terms=[...] of train), or choose "
            "another name",
        )
    raise InputError(
        f"the run there had other settings ({', '.join(changed)})",
        where=str(run.config_json),
        todo="resume with the same config, or choose another name (rembed config diff shows the difference); "
        "threads, packs, memory, what is logged and what is scored may change",
    )


def _look_at(
    run: RunFolder, step: int, settings: config.RunConfig, world: World, *, known: bool
) -> tuple[StartingPoint | None, str]:
    """Return a start from a step and what is to be said of it, or None and what is wrong with it."""
    folder, checkpoint = run.state(step), run.checkpoint(step)
    try:
        record, provenance = read_record(folder), read_provenance(checkpoint) or {}
    except InputError as error:
        return None, f"{error.where}: {error.what}"
    old = record["format"] == 1
    if old and not known:
        return None, f"{folder} is of an older version and does not say what settings it belongs to"
    if record.get("step", step) != step:
        return None, f"{folder} is the state of step {record['step']}"
    if not old and record.get("checkpoint") != provenance.get("content_hash"):
        return None, f"{folder} belongs to another checkpoint than {checkpoint}"
    if not old and (other := _other_settings(record.get("settings"), provenance, settings)):
        return None, f"{folder} belongs to a run with other settings ({', '.join(other)})"
    # Reading every byte is done once, and all ranks go where the main one goes.
    problem = ""
    if world.is_main:
        try:
            verify_content(checkpoint)
            verify_state(folder)
        except InputError as error:
            problem = f"{error.where}: {error.what}"
    if max_over_ranks(int(bool(problem)), world):
        return None, problem
    said = f"{folder} is of an older version and has no sums: it is taken as it is" if old else ""
    data = record.get("data") or _fingerprint_of_manifest(run)
    # Where the settings are gone, the state tells what the log was scored with; older ones do not.
    scoring = config.scoring_digest(masked(config.resolved_json(settings)))
    rescored = not known and record.get("scoring", scoring) != scoring
    return StartingPoint(settings, step, data, record.get("schedule"), rescored), said


def _other_settings(saved: Any, provenance: dict[str, Any], settings: config.RunConfig) -> list[str]:
    if not isinstance(saved, dict):
        return ["not recorded"]
    now = config.digests(masked(config.resolved_json(settings)))
    model = parent_record(settings.backbone).get("content_hash")
    another = model is not None and (provenance.get("parent") or {}).get("content_hash") not in (None, model)
    return [key for key, digest in saved.items() if now.get(key) != digest] + another * ["backbone"]


def _fingerprint_of_manifest(run: RunFolder) -> str | None:
    with contextlib.suppress(InputError):
        return read_manifest(run).get("data_fingerprint")
    return None


def repair(prepared: PreparedRun, text: str | None, report: Report) -> None:
    """Write anew what a finished run's folder says of it where that is gone or damaged, and say so.

    Parameters
    ----------
    prepared : PreparedRun
        The run; its checkpoints and states are whole.
    text : str, optional
        The config as written.
    report : callable
        Takes what is said.
    """
    run, settings, steps = prepared.run, prepared.settings, prepared.plan.steps
    try:
        whole = bool(read_settings(run)) and bool(read_manifest(run))
    except InputError:
        whole = False
    if not whole:
        describe_run(prepared, text, None)
        report(f"{run.config_json.name} and {run.manifest.name} were gone or damaged: they are written anew")
    damaged: list[str] = []
    read_json_lines(run.metrics, damaged=damaged.append)
    if damaged:
        cut_log(run, steps, report)
    if settings.evaluation is not None:
        select, said = settings.evaluation.select, []
        best = best_so_far(run, select, steps, said.append)
        if said and best is not None:
            report(said[0])
            write_best(run, best[1], best[0], select)


def describe_run(prepared: PreparedRun, text: str | None, memory: MemoryMode | None) -> None:
    """Write the config as written and as resolved, and the manifest.

    Parameters
    ----------
    prepared : PreparedRun
        What is about to be trained.
    text : str, optional
        The config as written.
    memory : MemoryMode, optional
        What its steps keep, where any are to come.
    """
    run, settings, world = prepared.run, prepared.settings, prepared.world
    if text is not None:
        atomic_write(run.config_yaml, text)
    write_json(run.config_json, sealed(config.resolved_json(settings), run.path))
    gpu = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else None
    manifest = {
        "name": settings.name,
        "settings_sha256": hash_file(run.config_json),
        "seed": settings.seed,
        "steps": prepared.plan.steps,
        "rows": len(prepared.table),
        "sources": prepared.table.sources,
        "skipped_rows": prepared.table.skipped,
        "data_fingerprint": prepared.data_fingerprint,
        "input_contract": asdict(prepared.inputs),
        "readout": prepared.readout,
        "ranks": world.size,
        "memory": asdict(memory) if memory is not None else None,
        "compute_dtype": str(prepared.compute or torch.float32).removeprefix("torch."),
        "hardware": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "gpu": gpu,
        },
        "versions": versions(),
        "git_commit": _git_commit(),
    }
    write_json(run.manifest, manifest, summed=True)


def _git_commit() -> str | None:
    """Commit of the code that runs, or None outside a checkout."""
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None


def parent_record(backbone: config.Backbone) -> dict[str, Any]:
    """Say what a run starts from, for the provenance of its checkpoints."""
    if isinstance(backbone, config.RandomBackbone):
        return {"architecture": backbone.architecture.model_dump(mode="json"), "seed": backbone.seed}
    record = read_provenance(Path(backbone.path)) if Path(backbone.path).is_dir() else None
    return {
        "path": backbone.path,
        "revision": backbone.revision,
        "content_hash": record.get("content_hash") if record else None,
    }
