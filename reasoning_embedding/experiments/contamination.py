"""What the training data share with the tasks that models are scored on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reasoning_embedding import config
from reasoning_embedding.files import write_json
from reasoning_embedding.progress import Report

if TYPE_CHECKING:
    from reasoning_embedding.data import Table


def scored_tasks(*scored: config.RunConfig | config.ExperimentConfig | None) -> list[config.Task]:
    """Return all tasks that a run and an experiment are scored on, while they train and after; each one once."""
    tasks: list[config.Task] = []
    for one in scored:
        if isinstance(one, config.ExperimentConfig):
            tasks += one.evaluation.tasks if one.evaluation is not None else []
        recipe = one.recipe if isinstance(one, config.ExperimentConfig) else one
        if recipe is not None and recipe.evaluation is not None:
            tasks += recipe.evaluation.public_tasks  # held-out rows share nothing with the others
    return [task for index, task in enumerate(tasks) if task not in tasks[:index]]


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
    from reasoning_embedding.evaluation.tasks.texts import task_texts

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
    write_json(target, {**result, "unchecked": unchecked}, summed=True)
