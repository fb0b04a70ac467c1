"""Running a sweep: what is not finished yet, as processes here or as jobs of a cluster."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reasoning_embedding import config
from reasoning_embedding.checkpoints import SweepFolder
from reasoning_embedding.checkpoints.locks import hold, is_held
from reasoning_embedding.errors import InputError, ReasoningEmbeddingError
from reasoning_embedding.experiments.processes import PATIENCE, EndedProcess, ProcessPool
from reasoning_embedding.files import require_folder
from reasoning_embedding.progress import Report

from .ledger import Outcome, SweepLedger
from .slurm import submit_runs


@dataclass(frozen=True)
class SweepResult:
    """How far the runs of a sweep are.

    Attributes
    ----------
    folder : Path
        The sweep's folder.
    outcomes : tuple of Outcome
        A run each, in order: what varies, how far it is, what it measured.
    page : Path or None
        What compares them; None where it was not made: only a part was run, or nothing was started.
    """

    folder: Path
    outcomes: tuple[Outcome, ...]
    page: Path | None = None


class SweepError(ReasoningEmbeddingError):
    """Runs of a sweep failed or are not finished; the others are. Exit code 1.

    Attributes
    ----------
    result : SweepResult or None
        How far all runs are, where that was asked.
    """

    result: SweepResult | None = None


@dataclass(frozen=True)
class Shard:
    """The part of a sweep's runs that one of several machines takes: every `count`-th, from the `index`-th."""

    index: int
    count: int

    def of(self, runs: Sequence[config.SweepRun]) -> list[config.SweepRun]:
        """Runs of this part; the parts of all indices are disjoint and give all runs."""
        return list(runs[self.index - 1 :: self.count])


ALL_RUNS = Shard(1, 1)


def parse_shard(text: str) -> Shard:
    """Read ``I/N``, such as ``2/4``.

    Raises
    ------
    InputError
        If it has another form, or I is not among 1 to N.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    shard = Shard(int(match[1]), int(match[2])) if match else None
    if shard is None or not 1 <= shard.index <= shard.count:
        raise InputError(
            f"--shard {text!r} is no part", todo="write I/N with I from 1 to N, such as --shard 1/4"
        )
    return shard


def run_sweep(
    sweep: config.SweepConfig,
    runs: Sequence[config.SweepRun],
    *,
    text: str | None = None,
    jobs: int | None = None,
    shard: Shard = ALL_RUNS,
    retry: bool = False,
    report: Report = print,
) -> Path:
    """Run what is not finished: interrupted runs are resumed, failed ones left unless `retry`.

    Parameters
    ----------
    sweep : config.SweepConfig
        The sweep.
    runs : sequence of config.SweepRun
        All its runs.
    text : str, optional
        The configuration as written, kept in the folder.
    jobs : int, optional
        Runs side by side; absent: the sweep's own.
    shard : Shard
        The part that is run here.
    retry : bool
        Start failed runs, and those that a cluster lost, again.
    report : callable
        Takes lines of progress.

    Returns
    -------
    Path
        The sweep's folder.

    Raises
    ------
    InputError
        If another process runs this sweep, or this part of it.
    SetupError
        If the sweep's launcher is not there.
    SweepError
        If runs failed or are not finished: another process trains them, or they were stopped. All others are finished
        first. Runs that a cluster's queue holds are no error.
    """
    ledger = SweepLedger(SweepFolder.of(sweep).path)
    require_folder(ledger.folder.path)
    jobs = jobs or sweep.jobs
    with hold_sweep(ledger.folder, shard):
        ledger.write(sweep, runs, text)
        todo = runs_to_start(ledger, shard.of(runs), retry=retry, report=report)
        if isinstance(sweep.launch, config.SlurmLaunch):
            commands = {
                run.name: launch_command(sweep.launch, ledger.folder.config_file(run.name)) for run in todo
            }
            submit_runs(ledger, sweep.launch, commands, name=sweep.name, jobs=jobs, report=report)
        else:
            _run_here(ledger, sweep.launch, todo, jobs, report)
            started = {run.name for run in todo}
            others = [run for run in shard.of(runs) if run.name not in started]
            _run_here(ledger, sweep.launch, _freed(ledger, others, report), jobs, report)
    states = {run.name: ledger.state(run)[0] for run in shard.of(runs)}
    queued = {"submitted", "running", "interrupted", "waiting"}
    accepted = {"finished"} | (queued if isinstance(sweep.launch, config.SlurmLaunch) else set())
    if set(states.values()) - accepted:
        raise _not_finished(states, accepted, ledger.folder.path)
    return ledger.folder.path


def _freed(ledger: SweepLedger, others: Sequence[config.SweepRun], report: Report) -> list[config.SweepRun]:
    """Wait for processes that this call did not start, and return the runs that they let go unfinished.

    They may be of a sweep that was killed: then they save and end.
    """
    held = {run.name: run for run in others if is_held(ledger.folder.run(run.name).lock)}
    if held:
        report(f"waiting up to {PATIENCE:.0f} s for other processes that train {', '.join(held)}")
    deadline = time.monotonic() + PATIENCE
    while held and time.monotonic() < deadline:
        time.sleep(0.2)
        held = {name: run for name, run in held.items() if is_held(ledger.folder.run(name).lock)}
    return [run for run in others if ledger.state(run)[0] in ("waiting", "interrupted")]


def _not_finished(states: Mapping[str, str], accepted: set[str], folder: Path) -> SweepError:
    failed = [name for name, state in states.items() if state == "failed"]
    rest = [
        f"{name} ({state})" for name, state in states.items() if state not in accepted and state != "failed"
    ]
    said, todo = [], []
    if failed:
        said.append(f"{len(failed)} of {len(states)} runs failed: {', '.join(failed[:10])}")
        todo.append("`rembed sweep CONFIG --list` says why; repair it and add --retry")
    if rest:
        said.append(f"{len(rest)} of {len(states)} runs are not finished: {', '.join(rest[:10])}")
        todo.append("run the same command again to go on; one that another process trains must end first")
    return SweepError("; ".join(said), where=str(folder), todo="; ".join(todo))


def runs_to_start(
    ledger: SweepLedger, runs: Sequence[config.SweepRun], *, retry: bool, report: Report
) -> list[config.SweepRun]:
    """Return the runs that are to be started, and say what becomes of the others."""
    todo: list[config.SweepRun] = []
    for run in runs:
        state, note = ledger.state(run)
        if state in ("waiting", "interrupted") or (state in ("failed", "submitted") and retry):
            todo.append(run)
            continue
        reason = {
            "finished": "done before",
            "running": "another process is training it",
            "failed": f"failed before ({note.splitlines()[0] if note else 'no message'}); --retry tries again",
            "submitted": f"waits in the queue ({note}); --retry submits it again",
        }[state]
        report(f"[{run.name}] {reason}")
    return todo


def launch_command(launch: config.LocalLaunch | config.SlurmLaunch, file: Path) -> list[str]:
    """Return the command that trains one run, or goes on with it."""
    train = ["-m", "reasoning_embedding", "train", str(file), "--resume"]
    if launch.accelerate is None:
        return [sys.executable, *train]
    # Port 0: a free one, so that runs side by side do not meet.
    options = ["--config_file", launch.accelerate, "--main_process_port", "0"]
    return [sys.executable, "-m", "accelerate.commands.launch", *options, *train]


def launch_line(launch: config.LocalLaunch | config.SlurmLaunch, file: Path) -> str:
    """Return the line that launches one run by hand, on any machine that sees the sweep's folder."""
    options = ["--config_file", launch.accelerate] if launch.accelerate is not None else []
    return shlex.join(
        ["accelerate", "launch", *options, "-m", "reasoning_embedding", "train", str(file), "--resume"]
    )


@contextlib.contextmanager
def hold_sweep(folder: SweepFolder, shard: Shard) -> Generator[None]:
    """Hold a sweep, or one part of it: parts of one division run side by side, anything else is refused.

    Raises
    ------
    InputError
        If another process holds it.
    """
    todo = "wait for it, or change name"
    refusal = "another process runs this sweep"
    if shard == ALL_RUNS:
        with hold(folder.lock, refusal=refusal, todo=todo):
            yield
        return
    name = f".lock-{shard.index}-of-{shard.count}"
    refused = f"{refusal}'s part {shard.index}/{shard.count}"
    with (
        hold(folder.lock, refusal=refusal, todo=todo, shared=True),
        hold(folder.path / name, refusal=refused, todo=todo),
    ):
        yield


def _run_here(
    ledger: SweepLedger,
    launch: config.LocalLaunch,
    runs: Sequence[config.SweepRun],
    jobs: int,
    report: Report,
) -> None:
    waiting = list(runs)
    with ProcessPool(jobs, report) as pool:
        while waiting or pool.busy:
            while waiting and pool.free:
                run = waiting.pop(0)
                ledger.forget(run.name)
                command = launch_command(launch, ledger.folder.config_file(run.name))
                pool.start(run.name, command, ledger.folder.log(run.name))
            _record_end(ledger, pool.wait(), report)


def _record_end(ledger: SweepLedger, ended: EndedProcess, report: Report) -> None:
    if ended.code == 0:
        ledger.record(ended.name, "finished")
        report(f"[{ended.name}] done in {ended.seconds:.0f} s")
    elif ended.stopped:
        report(f"[{ended.name}] stopped; the next `rembed sweep` goes on with it")
    else:
        ledger.record(ended.name, "failed", ended.message)
        report(f"[{ended.name}] failed: {ended.message}")
