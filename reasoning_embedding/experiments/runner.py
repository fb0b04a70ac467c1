"""Running an experiment: each stage once, in a process of its own, after what it needs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from reasoning_embedding import config
from reasoning_embedding.checkpoints import ExperimentFolder
from reasoning_embedding.checkpoints.locks import hold
from reasoning_embedding.errors import InputError, ReasoningEmbeddingError
from reasoning_embedding.files import atomic_write, read_json, require_folder, write_json
from reasoning_embedding.progress import Report

from .processes import EndedProcess, ProcessPool
from .records import StageRecords
from .stages import Stage, plan_stages


class StageError(ReasoningEmbeddingError):
    """A stage failed; carries the exit code of its process."""

    def __init__(self, ended: EndedProcess) -> None:
        todo = f"its log is {ended.log}; finished stages are kept"
        super().__init__(ended.message, where=ended.name, todo=todo)
        self.exit_code = ended.code if ended.code > 0 else 1


def run_experiment(
    experiment: config.ExperimentConfig, *, text: str | None = None, report: Report = print
) -> Path:
    """Run every stage that is not done yet and return the experiment's folder.

    Parameters
    ----------
    experiment : config.ExperimentConfig
        What to run.
    text : str, optional
        The configuration as written, kept in the folder.
    report : callable
        Takes lines of progress.

    Raises
    ------
    InputError
        If another process runs it.
    StageError
        When a stage fails; what is finished stays.
    """
    folder = ExperimentFolder.of(experiment)
    require_folder(folder.path)
    stages = plan_stages(experiment)
    with hold(
        folder.lock, refusal="another process runs this experiment", todo="wait for it, or change name"
    ):
        if text is not None:
            atomic_write(folder.config_yaml, text)
        write_json(folder.config_json, config.resolved_json(experiment), summed=True)
        run_stages(folder, stages, jobs=experiment.jobs, report=report)
    return folder.path


def read_experiment(folder: ExperimentFolder) -> config.ExperimentConfig:
    """Read an experiment back from its folder.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    todo = "run the experiment again with its configuration, which writes the file anew"
    try:
        return config.ExperimentConfig.model_validate(read_json(folder.config_json, todo=todo))
    except ValidationError as error:
        what = f"the file describes no experiment ({error.errors()[0]['msg']})"
        raise InputError(what, where=str(folder.config_json), todo=todo) from error


def stage_command(folder: ExperimentFolder, stage: Stage) -> list[str]:
    """Return the command that does one stage in a process."""
    return [sys.executable, "-m", "reasoning_embedding.experiments", str(folder.path), stage.name]


def run_stages(
    folder: ExperimentFolder,
    stages: Sequence[Stage],
    *,
    jobs: int,
    report: Report,
    command: Callable[[ExperimentFolder, Stage], list[str]] = stage_command,
) -> None:
    """Run what is not done yet, each stage after what it needs.

    Parameters
    ----------
    folder : ExperimentFolder
        Holds the experiment's resolved configuration.
    stages : sequence of Stage
        Parents first.
    jobs : int
        Processes side by side.
    report : callable
        Takes each line a stage prints, with the stage's name before it.
    command : callable
        Gives the command that does a stage.

    Raises
    ------
    StageError
        When a stage fails; the others are asked to stop and save first.
    """
    records = StageRecords(folder, stages)
    done = {stage.name for stage in stages if records.is_done(stage.name)}
    for name in (stage.name for stage in stages if stage.name in done):
        report(f"[{name}] done before")
    waiting = [stage for stage in stages if stage.name not in done]
    with ProcessPool(jobs, report) as pool:
        while waiting or pool.busy:
            ready = [stage for stage in waiting if done.issuperset((*stage.needs, *stage.after))]
            for stage in ready[: pool.free]:
                waiting.remove(stage)
                pool.start(stage.name, command(folder, stage), folder.log(stage.name))
            ended = pool.wait()
            if ended.code:
                raise StageError(ended)
            records.finish(ended.name, ended.seconds, ended.processor_seconds)
            done.add(ended.name)
            report(
                f"[{ended.name}] done in {ended.seconds:.0f} s ({ended.processor_seconds:.0f} s of processor time)"
            )
