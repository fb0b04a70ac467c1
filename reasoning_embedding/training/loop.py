"""The training loop, read aloud: embed, compare, guard, step, log, save."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder, checkpoint_steps
from reasoning_embedding.checkpoints.locks import hold
from reasoning_embedding.data import Table
from reasoning_embedding.distributed import World, explain_lost_ranks, joined_world, max_over_ranks
from reasoning_embedding.errors import InputError, SetupError, TrainingError
from reasoning_embedding.isolation import threads
from reasoning_embedding.progress import Report

from .callbacks import Callbacks
from .memory_mode import choose_memory_mode
from .metrics import Metrics, Throughput, set_scores_aside
from .optimizers import learning_rate_at
from .out_of_memory import explain_out_of_memory
from .run_folder import describe_run, repair, starting_point
from .selection import Score, Selection
from .setup import prepare
from .signals import StoppedError, StopRequest
from .step import contrastive_step
from .timers import Timers, phase
from .trackers import open_trackers, require_trackers

#: Batches looked at for the largest one, when the memory mode is chosen.
_LOOK_AHEAD = 8

#: More than any signal's number: how a rank says that a callback ended the run.
_ENDED = 1000

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
    callbacks: Callbacks | None = None,
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
    callbacks : Callbacks, optional
        Functions of a Python program: terms of the loss, and what looks at steps and may end the run early.

    Returns
    -------
    RunFolder
        With every checkpoint of the schedule (up to where a callback ended it), and that of the best step.

    Raises
    ------
    InputError
        For data, backbone, folder or evaluation that cannot be used.
    SetupError
        If this machine lacks the device.
    TrainingError
        If loss or gradient stop being finite, naming the step, if memory runs out, naming what to set, or if
        another rank is gone; the last good checkpoint stays.
    StoppedError
        After SIGTERM or SIGINT, when the state is saved.
    """
    if settings.training.device == "mps":
        raise SetupError(
            "training sums its loss in float64, which MPS does not have",
            where="training.device",
            todo="train on cpu or cuda; evaluate, embed and analyze take --device mps",
        )
    run = RunFolder.of(settings)
    refusal = "another process is training in this run folder"
    lock = hold(run.lock, refusal=refusal, todo="wait for it, or change name")
    with (
        threads(settings.training.threads),
        joined_world(
            timeout_minutes=settings.training.timeout_minutes, device=settings.training.device
        ) as world,
        explain_lost_ranks(world),
        explain_out_of_memory(settings.training),
        lock if world.is_main else nullcontext(),
    ):
        speak = report if world.is_main else lambda line: None
        given = callbacks or Callbacks()
        _train(settings, run, world, text, given, resume=resume, report=speak, score=score, examine=examine)
    return run


def _train(
    settings: config.RunConfig,
    run: RunFolder,
    world: World,
    text: str | None,
    callbacks: Callbacks,
    *,
    resume: bool,
    report: Report,
    score: Score | None,
    examine: Examine | None,
) -> None:
    # Whatever can be refused is refused here, before anything is written.
    if settings.evaluation is not None and score is None:
        raise InputError("this run is scored while it trains", todo="give train() a score, or no evaluation")
    begin = starting_point(run, settings, world, resume=resume, report=report)
    settings, start = begin.settings, begin.step
    world.barrier()  # every rank has looked before the main one writes
    require_trackers(settings)
    prepared = prepare(begin, run, world, report=report, given_terms=callbacks.terms)
    engine, loss, training, steps = prepared.engine, prepared.loss, settings.training, prepared.plan.steps
    if start >= steps:
        if world.is_main:
            repair(prepared, text, report)
            if begin.rescored:
                report(
                    f"the scores it took stay those of its own evaluation: `rembed evaluate {run.path}` takes others"
                )
        report(f"finished before: {run.path}")
        return
    if examine is not None and start == 0 and world.is_main:
        examine(prepared.table)

    # By the first batches, whatever step it goes on from; before a first evaluation, which may take long.
    batches = [prepared.batch(step) for step in range(1, min(_LOOK_AHEAD, steps) + 1)]
    memory = choose_memory_mode(training, engine, batches, prepared.compute)
    report(f"memory: {memory.mode}; {memory.reason}")

    selection, first_scores = None, None
    if settings.evaluation is not None and score is not None:
        selection = Selection(settings.evaluation, score, run, world, steps=steps, report=report)
        if start == 0 or begin.rescored:
            first_scores = selection.begin(engine.full_embedder(), start)

    saved = set(checkpoint_steps(settings.checkpoints, steps))
    if world.is_main:
        prepared.require_space([step for step in {0, *saved} if step > start or start == step == 0])
        if begin.rescored and first_scores is not None:
            report(
                f"evaluation changed: the scores before step {start} are set aside, and step {start} is scored anew"
            )
            set_scores_aside(run, start, first_scores, report)
        describe_run(prepared, text, memory)
    if start == 0:
        prepared.save(0)
    metrics = None
    if world.is_main:
        trackers = open_trackers(settings, run, first=start, report=report)
        every = settings.logging.every
        metrics = Metrics(run, steps=steps, first=start, every=every, trackers=trackers, report=report)
        if selection is not None and first_scores is not None and start == 0:
            metrics.write({"step": 0, "evaluation": first_scores})
            selection.write()
    if selection is not None and start > 0:
        selection.resume(start)
    throughput = Throughput(prepared.embedder, settings, world)

    timers = Timers(world.device)
    with StopRequest() as stop, timers.active():
        for step in range(start + 1, steps + 1):
            # Loss and gradient of the batch.
            # What a backbone draws by itself is a function of (seed, step, rank), so nothing needs saving.
            torch.manual_seed(((settings.seed * 1_000_003 + step) * 4099 + world.rank) % 2**63)
            with phase("data"):
                batch = prepared.batch(step)
            output = contrastive_step(
                prepared.embedder,
                batch,
                loss,
                world,
                pack_tokens=training.pack_tokens,
                store_tokens=memory.store_tokens,
                autocast=prepared.compute,
                engine=engine,
                anchor=prepared.anchor,
                dropout=(settings.seed, step),
            )
            _check_finite("loss", output.loss, step)

            # The optimizer's step.
            rate = learning_rate_at(step, steps, training)
            with phase("optimizer"):
                norm = engine.update(rate)
            _check_finite("gradient norm", norm, step)
            loss.update(rate)

            # Score when due.
            scores, best = None, False
            with phase("evaluation"):
                if selection is not None and selection.due(step):
                    scores, best = selection.score(engine.full_embedder(), step)

            # Write down what was measured.
            times, ended = timers.take(), False
            if metrics is not None:
                record: dict[str, Any] = {"step": step, "loss": output.loss, "accuracy": output.accuracy}
                record |= output.parts | {"learning_rate": rate, "grad_norm": norm, "source": batch.source}
                record |= throughput.of(batch, output, times)
                record |= {"evaluation": scores} if scores is not None else {}
                ended = callbacks.step(record, steps, best=best)
                record |= {"ended_by": "on_step"} if ended and step < steps else {}
                metrics.step(record)

            # Save when due, when it is the best so far, and when asked to stop.
            # A signal reaches ranks at different steps, and callbacks run on the main one.
            ended, stopped = divmod(max_over_ranks(stop.number + _ENDED * ended, world), _ENDED)
            if step in saved or stopped or best or ended:
                with phase("save"):
                    prepared.save(step)
                if world.is_main and callbacks.checkpoint(step, steps, run.checkpoint(step), best=best):
                    ended = 1
                ended = max_over_ranks(int(ended), world)
            if selection is not None and best:
                selection.write()

            # Stop when asked.
            if metrics is not None and (stopped or ended or step == steps):
                metrics.close()
            if stopped and step < steps:
                raise StoppedError(step, stopped)
            if ended and step < steps:
                report(f"ended early, after step {step} of {steps}, as a callback asked")
                return


def _check_finite(name: str, value: float, step: int) -> None:
    """Stop before the weights are touched; loss and norm are equal on all ranks."""
    if not math.isfinite(value):
        raise TrainingError(
            f"the {name} is {value} at step {step}",
            where=f"step {step}",
            todo="the checkpoint before it is intact: lower learning_rate, raise temperature, or look at this batch",
        )
