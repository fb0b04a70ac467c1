"""Runs as jobs of a SLURM cluster, submitted through submitit as one array."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from reasoning_embedding import config
from reasoning_embedding.errors import SetupError
from reasoning_embedding.experiments.processes import QUIET, EndedProcess
from reasoning_embedding.orphans import works_for_this_process
from reasoning_embedding.progress import Report
from reasoning_embedding.secrets import known_secrets, mask

from .ledger import SweepLedger


class TrainJob:
    """What a job does: train one run to its end, and note how it ended; pickled by submitit, so small.

    Parameters
    ----------
    folder : str
        The sweep's folder, seen by the node as by the machine that submits.
    name : str
        The run.
    command : list of str
        Trains it.
    """

    def __init__(self, folder: str, name: str, command: list[str]) -> None:
        self.folder, self.name, self.command = folder, name, command
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Train, and return the exit code."""
        ledger = SweepLedger(Path(self.folder))
        log = ledger.folder.log(self.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        secrets = known_secrets()
        with log.open("w", encoding="utf-8", buffering=1) as file:
            self._process = subprocess.Popen(
                self.command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**QUIET, "PYTHONUNBUFFERED": "1", **os.environ, **works_for_this_process()},
            )
            assert self._process.stdout is not None
            for line in self._process.stdout:
                file.write(mask(line.decode(errors="replace"), *secrets))
            code = self._process.wait()
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        ended = EndedProcess(self.name, code, lines, log, 0.0)
        if code == 0:
            ledger.record(self.name, "finished")
        elif not ended.stopped:
            ledger.record(self.name, "failed", ended.message)
        return code

    def checkpoint(self) -> Any:
        """Stop and save when the time is up or the job is pre-empted; submitit queues it again."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        return DelayedSubmission(TrainJob(self.folder, self.name, self.command))


def submit_runs(
    ledger: SweepLedger,
    launch: config.SlurmLaunch,
    commands: dict[str, list[str]],
    *,
    name: str,
    jobs: int,
    report: Report,
    cluster: str = "slurm",
) -> list[Any]:
    """Submit runs and return at once; ``rembed sweep CONFIG --list`` says how far they are.

    Parameters
    ----------
    ledger : SweepLedger
        Takes the number of each job.
    launch : config.SlurmLaunch
        What a job may use.
    commands : dict
        The command of each run.
    name : str
        Of the jobs, as ``squeue`` shows it.
    jobs : int
        Jobs of the array that run side by side.
    report : callable
        Takes a line a job.
    cluster : str
        ``slurm``; submitit's ``local`` and ``debug`` run the jobs on this machine.

    Returns
    -------
    list
        submitit's jobs.

    Raises
    ------
    SetupError
        If submitit is not installed, or this is no machine of a SLURM cluster.
    """
    if not commands:
        return []
    try:
        import submitit
    except ImportError as error:
        raise SetupError(
            "SLURM is reached through submitit, which is not installed",
            todo='pip install "reasoning-embedding[slurm]"',
        ) from error
    try:
        executor = submitit.AutoExecutor(folder=ledger.folder.jobs, cluster=cluster)
    except RuntimeError as error:
        raise SetupError(
            f"no SLURM here: {error}",
            todo="submit from a login node, or take `launch: {kind: local}`, or --dry-run for launch lines",
        ) from error
    given = {"partition": launch.partition, "account": launch.account, "array_parallelism": jobs}
    executor.update_parameters(
        name=name,
        timeout_min=int(launch.hours * 60),
        nodes=1,
        tasks_per_node=1,
        gpus_per_node=launch.gpus,
        cpus_per_task=launch.cpus,
        mem_gb=launch.memory_gb,
        slurm_additional_parameters=launch.extra,
        **{f"slurm_{key}": value for key, value in given.items() if value is not None},
    )
    for run in commands:
        ledger.forget(run)
    with executor.batch():
        submitted = {
            run: executor.submit(TrainJob(str(ledger.folder.path.resolve()), run, command))
            for run, command in commands.items()
        }
    for run, job in submitted.items():
        if not ledger.folder.record(run).exists():  # a job that ended by now has noted how
            ledger.record(run, "submitted", f"job {job.job_id}")
        report(f"[{run}] submitted as job {job.job_id}")
    return list(submitted.values())
