"""Tasks of the configuration as tasks of mteb."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mteb.abstasks import AbsTask

from reasoning_embedding import config
from reasoning_embedding.data.beir import read_beir
from reasoning_embedding.errors import InputError
from reasoning_embedding.evaluation.instructions import Instructions

from .bright import LocalBright, read_bright
from .choice import LocalChoice, read_candidates
from .classification import LocalClassification, read_labelled
from .retrieval import LocalRetrieval, world_data
from .sts import LocalSts, read_pairs
from .suites import check_available, load_suite


def load_tasks(tasks: Sequence[config.Task], instructions: Instructions | None = None) -> list[AbsTask]:
    """Read all tasks before the first is scored, so that a faulty one costs no time.

    Parameters
    ----------
    tasks : sequence of config.Task
        Of any kind but number sequences, which are no task of mteb. A suite's tasks take its place; one that
        two suites hold with the same subsets is scored once.
    instructions : Instructions, optional
        Checked against the names of the tasks.

    Raises
    ------
    InputError
        When two tasks share a name, a file is faulty, or an instruction is for no task.
    SetupError
        When a suite's data is not on this machine and the network may not be asked.
    """
    loaded: dict[str, AbsTask] = {}
    suites: list[AbsTask] = []
    for task in tasks:
        found = load_suite(task) if isinstance(task, config.SuiteTask) else [load_task(task)]
        for one in found:
            name = one.metadata.name
            same = loaded.setdefault(name, one)
            if same is one:
                suites += [one] if isinstance(task, config.SuiteTask) else []
            elif not any(same is other for other in suites) or _extent(same) != _extent(one):
                raise InputError(
                    f"two tasks are named {name!r}",
                    where="evaluation.tasks",
                    todo="give one a 'name', or the same 'languages' and 'subsets'",
                )
    (instructions or Instructions()).check(loaded)
    check_available(suites)
    return list(loaded.values())


def _extent(task: AbsTask) -> tuple[str, frozenset[str], frozenset[str]]:
    """What of a data set is scored."""
    return task.metadata.revision, frozenset(task.hf_subsets), frozenset(task.eval_splits)


def load_task(task: config.Task) -> AbsTask:
    """Read a local task of the configuration.

    Raises
    ------
    InputError
        When a file of it is missing or faulty.
    """
    name = task_name(task)
    match task:
        case config.WorldTask():
            return LocalRetrieval(name, world_data(task.seed, task.relations))
        case config.BeirTask():
            return LocalRetrieval(name, read_beir(_path(task.path), instruction=task.instruction))
        case config.ChoiceTask():
            data = read_beir(_path(task.path), instruction=task.instruction)
            return LocalChoice(name, data, read_candidates(_path(task.path), data))
        case config.BrightTask():
            bright = read_bright(_path(task.path), task.subject, long=task.long, instruction=task.instruction)
            return LocalBright(name, *bright)
        case config.StsTask():
            pairs = read_pairs([_path(path) for path in task.paths], task.columns)
            return LocalSts(name, pairs, instruction=task.instruction)
        case config.ClassificationTask():
            tables = read_labelled(_path(task.train), _path(task.test), task.text, task.label)
            return LocalClassification(
                name, *tables, samples_per_label=task.samples_per_label, instruction=task.instruction
            )
    raise TypeError(f"{task.kind!r} is not a local task of mteb")


def _path(path: str) -> Path:
    return Path(path).expanduser()


def task_name(task: config.Task) -> str:
    """Return the name a task is reported under: its own, or that of its folder or file."""
    if isinstance(task, config.BrightTask):
        return f"bright-{task.subject}{'-long' if task.long else ''}"
    if task.name is not None:
        return task.name
    path = _path(task.paths[0] if isinstance(task, config.StsTask) else task.path).resolve()
    return path.name if isinstance(task, config.BeirTask | config.ChoiceTask) else path.name.split(".")[0]
