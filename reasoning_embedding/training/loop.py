"""The training loop, read aloud: embed, compare, guard, step, log, save."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder, checkpoint_steps
from reasoning_embedding.data import Table
from reasoning_embedding.distributed import World, explain_lost_ranks, joined_world, max_over_ranks
from reasoning_embedding.errors import InputError, TrainingError

from .folder import describe_run, first_step, locked
from .memory import MemoryPlan, plan_memory
from .meters import Gauges, Meters, Report
from .optimizers import learning_rate_at
from .out_of_memory import explain_out_of_memory
from .selection import Score, Selection
from .setup import Job, prepare
from .signals import StoppedError, StopRequest
from .step import contrastive_step
from .timers import Timers, phase
from .trackers import open_trackers, require_trackers

#: Batches looked at for the largest one, when the memory mode is chosen.
_LOOK_AHEAD = 8

#: Looks at a new run's data before its first step; called on the main rank.
Examine = Callable[[Table], None]


def train(
    settings: config.RunConfig,
    *,
    text: str | None = None,
    resume: bool = False,
    report: Report = print,
    score: Score | None = None,
    examine: Examine | None = None,
) -> RunFolder:
    """Train one run to its end, alone or as one rank of a launched job.

    Parameters
    ----------
    settings : config.RunConfig
        The run.
    text : str, optional
        The configuration as written, kept in the run folder.
    resume : bool
        Go on from the newest saved state; the result is bitwise that of an undisturbed run.
    report : callable
        Takes lines of progress; only the main rank speaks.
    score : callable, optional
        Scores the live model; needed by a run with an ``evaluation``. The weights do not depend on it.
    examine : callable, optional
        Looks at the data of a new run before its first step.

    Returns
    -------
    RunFolder
        With every checkpoint of the schedule, and that of the best step.

    Raises
    ------
    InputError
        For data, backbone, folder or evaluation that cannot be used.
    TrainingError
        If loss or gradient stop being finite, naming the step, if memory runs out, naming what to set, or if
        another rank is gone; the last good checkpoint stays.
    StoppedError
        After SIGTERM or SIGINT, when the state is saved.
    """
    if settings.training.threads is not None:
        torch.set_num_threads(settings.training.threads)
    run = RunFolder(Path(settings.output_dir) / settings.name)
    with (
        joined_world(timeout_minutes=settings.training.timeout_minutes) as world,
        explain_lost_ranks(world),
        explain_out_of_memory(settings.training),
    ):
        if not world.is_main:
            return _run(settings, run, world, text, score, None, resume=resume, report=lambda _: None)
        with locked(run):
            return _run(settings, run, world, text, score, examine, resume=resume, report=report)


def _run(
    settings: config.RunConfig,
    run: RunFolder,
    world: World,
    text: str | None,
    score: Score | None,
    examine: Examine | None,
    *,
    resume: bool,
    report: Report,
) -> RunFolder:
    if settings.evaluation is not None and score is None:
        raise InputError("this run is scored while it trains", todo="give train() a score, or no evaluation")
    start = first_step(run, settings, resume=resume)
    world.barrier()  # every rank has looked before the main one writes
    require_trackers(settings)
    job = prepare(settings, run, world, start=start, report=report)
    if start >= job.plan.steps:
        report(f"finished before: {run.path}")
        return run
    if examine is not None and start == 0:
        examine(job.table)
    memory = _memory(job, report)  # before a first evaluation, which may take long: it may find too little
    selection, first = None, None
    if settings.evaluation is not None and score is not None:
        selection = Selection(settings.evaluation, score, run, world, steps=job.plan.steps, report=report)
        if start == 0:
            first = selection.begin(job.engine.whole())
        else:
            selection.resume(start)
    if world.is_main:
        describe_run(
            run,
            settings,
            text,
            table=job.table,
            plan=job.plan,
            inputs=job.inputs,
            world=world,
            memory=memory,
            compute=job.compute,
        )
    if start == 0:
        job.save(0)
    _steps(job, start, memory, report, selection, first)
    return run


def _steps(
    job: Job,
    start: int,
    memory: MemoryPlan,
    report: Report,
    selection: Selection | None,
    first: dict[str, float] | None,
) -> None:
    training, steps = job.settings.training, job.plan.steps
    saved = set(checkpoint_steps(job.settings.checkpoints, steps))
    meters = None
    if job.world.is_main:
        trackers = open_trackers(job.settings, job.run, first=start, report=report)
        meters = Meters(job.run, steps=steps, first=start, trackers=trackers, report=report)
        if selection is not None and first is not None:
            meters.log({"step": 0, "evaluation": first})
            selection.write()

    timers = Timers(job.world.device)
    gauges = Gauges(job.embedder, job.settings, job.world)
    with StopRequest() as stop, timers.active():
        for step in range(start + 1, steps + 1):
            # For what a backbone draws by itself: a function of (seed, step, rank), so nothing needs saving.
            torch.manual_seed(((job.settings.seed * 1_000_003 + step) * 4099 + job.world.rank) % 2**63)
            with phase("data"):
                batch = job.batch(step)
            output = contrastive_step(
                job.embedder,
                batch,
                job.loss,
                job.world,
                pack_tokens=training.pack_tokens,
                store_tokens=memory.store_tokens,
                autocast=job.compute,
                engine=job.engine,
                anchor=job.anchor,
                dropout=(job.settings.seed, step),
            )
            _check_finite("loss", output.loss, step)
            rate = learning_rate_at(step, steps, training)
            with phase("optimizer"):
                norm = job.engine.update(rate)
            _check_finite("gradient norm", norm, step)
            job.loss.update(rate)

            with phase("evaluation"):
                scores, best = None, False
                if selection is not None and selection.due(step):
                    scores, best = selection.at(job.engine.whole(), step)
            times = timers.take()
            if meters is not None:
                record: dict[str, Any] = {"step": step, "loss": output.loss, "accuracy": output.accuracy}
                record |= output.parts | {"learning_rate": rate, "grad_norm": norm, "source": batch.source}
                record |= gauges.read(batch, output, times)
                record |= {"evaluation": scores} if scores is not None else {}
                if step % job.settings.logging.every == 0 or step == steps or scores is not None:
                    meters.log(record)
                meters.speak(record)
            stopped = max_over_ranks(stop.number, job.world)  # a signal reaches ranks at different steps
            if step in saved or stopped or best:
                with phase("save"):
                    job.save(step)
            if selection is not None and best:
                selection.write()
            if meters is not None and (stopped or step == steps):
                meters.close()
            if stopped and step < steps:
                raise StoppedError(step, stopped)


def _memory(job: Job, report: Report) -> MemoryPlan:
    """Choose the memory mode by the first batches of the run, whatever step it goes on from."""
    batches = [job.batch(step) for step in range(1, min(_LOOK_AHEAD, job.plan.steps) + 1)]
    plan = plan_memory(job.settings.training, job.engine, batches, job.compute)
    report(f"memory: {plan.mode}; {plan.reason}")
    return plan


def _check_finite(name: str, value: float, step: int) -> None:
    """Stop before the weights are touched; loss and norm are equal on all ranks."""
    if not math.isfinite(value):
        raise TrainingError(
            f"the {name} is {value} at step {step}",
            where=f"step {step}",
            todo="the checkpoint before is whole: lower learning_rate, raise temperature, or look at this batch",
        )
