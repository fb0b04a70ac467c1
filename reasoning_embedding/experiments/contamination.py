"""Telling before training which evaluation texts the training data holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.files import write_json

if TYPE_CHECKING:
    from reasoning_embedding.data import Table

Report = Callable[[str], None]
#: Name of the stage that compares an experiment's data with its tasks.
CONTAMINATION = "contamination"


def scored_tasks(experiment: config.ExperimentConfig) -> list[config.Task]:
    """Return all tasks an experiment is scored on, while it trains and after."""
    sections = (experiment.evaluation, experiment.recipe.evaluation)
    tasks = [task for section in sections if section is not None for task in section.tasks]
    return [task for index, task in enumerate(tasks) if task not in tasks[:index]]


def contamination_of(settings: config.RunConfig, report: Report) -> Callable[[Table], None] | None:
    """Return what compares a run's data with its tasks, or None where it has none.

    Parameters
    ----------
    settings : config.RunConfig
        The run; its folder receives ``contamination.json``.
    report : callable
        Takes a line a task.
    """
    if settings.evaluation is None:
        return None
    tasks = settings.evaluation.tasks
    target = RunFolder(Path(settings.output_dir) / settings.name).contamination
    return lambda table: compare_tasks(table, tasks, target, report)


def compare_tasks(table: Table, tasks: Sequence[config.Task], target: Path, report: Report) -> None:
    """Compare training data with the texts of tasks, say what is found and write it down.

    Parameters
    ----------
    table : Table
        The training data.
    tasks : sequence of config.Task
        One whose texts cannot be had here is named under ``unchecked``, with the reason.
    target : Path
        The JSON file to write.
    report : callable
        Takes a line a task.

    Raises
    ------
    InputError
        When a local task is faulty.
    SetupError
        When the file cannot be written.
    """
    from reasoning_embedding.data.quality.contamination import contamination, contamination_line
    from reasoning_embedding.evaluation.texts import task_texts

    texts: dict[str, dict[str, list[str]]] = {}
    unchecked: dict[str, str] = {}
    for name, found in task_texts(tasks):
        if isinstance(found, str):
            unchecked[name] = found
        else:
            texts[name] = found
    result = contamination(table, texts)
    for name, kinds in result["tasks"].items():
        report(contamination_line(name, kinds))
    for name, reason in unchecked.items():
        report(f"contamination of {name}: not checked, {reason.splitlines()[0]}")
    write_json(target, {**result, "unchecked": unchecked})
