"""Benchmarks and tasks of mteb by name."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import datasets.config
import huggingface_hub.constants
from datasets.naming import camelcase_to_snakecase
from mteb import get_benchmark, get_benchmarks, get_task
from mteb.abstasks import AbsTask
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.get_tasks import TASK_LIST

from reasoning_embedding import config
from reasoning_embedding.config.reading.suggestions import did_you_mean
from reasoning_embedding.errors import InputError, SetupError


def load_suite(suite: config.SuiteTask) -> list[AbsTask]:
    """Return the tasks of a benchmark, or the one task, that a name stands for.

    Parameters
    ----------
    suite : config.SuiteTask
        ``languages`` leaves the subsets that hold one of them, and drops a benchmark's tasks without any;
        ``subsets`` is for a single task.

    Raises
    ------
    InputError
        For a name, language or subset that is not there, with the nearest one that is; for filters that
        leave nothing; for a task that is about more than text.
    """
    benchmarks = benchmark_names()
    if suite.name in benchmarks:
        if suite.subsets is not None:
            raise InputError(
                "a benchmark has no subsets", where=suite.name, todo="give 'subsets' to a task of it"
            )
        # A copy: filtering a task changes it, and mteb keeps one of each.
        tasks = copy.deepcopy(list(get_benchmark(suite.name).tasks))
        kept = [task for task in tasks if suite.languages is None or _narrow(task, suite)]
    elif suite.name in task_names():
        task = get_task(suite.name)
        _check_subsets(task, suite)
        kept = [task] if _narrow(task, suite) else []
    else:
        raise InputError(
            f"mteb has no benchmark and no task {suite.name!r}"
            f"{did_you_mean(suite.name, [*benchmarks, *task_names()])}",
            where="evaluation.tasks",
            todo="take a name of mteb.get_benchmarks() or mteb.get_tasks()",
        )
    if not kept:
        raise InputError(
            f"no task is left with languages {suite.languages}", where=suite.name, todo="loosen 'languages'"
        )
    if others := [task.metadata.name for task in kept if set(task.metadata.modalities) != {"text"}]:
        raise InputError(
            f"{len(others)} tasks are about more than text, {others[0]} first",
            where=suite.name,
            todo="take a suite of text",
        )
    return kept


def suite_members(tasks: Iterable[config.Task]) -> dict[str, list[str]]:
    """Return for each benchmark among tasks of the configuration the names of its tasks."""
    return {
        task.name: [member.metadata.name for member in load_suite(task)]
        for task in tasks
        if isinstance(task, config.SuiteTask) and task.name in benchmark_names()
    }


def check_available(tasks: Iterable[AbsTask]) -> None:
    """Say which data sets are not on this machine, where the network must not be asked for them.

    Raises
    ------
    SetupError
        When ``HF_HUB_OFFLINE`` is set and a data set lies in neither cache; all such are listed.
    """
    if not huggingface_hub.constants.HF_HUB_OFFLINE:
        return
    wanted = {(name, *data_set) for task in tasks for name, data_set in _data_sets(task)}
    missing = sorted(row for row in wanted if not _cached(*row[1:]))
    if not missing:
        return
    lines = [f"  {name}: data set {path}, revision {revision}" for name, path, revision in missing]
    raise SetupError(
        "\n".join(["offline, and these data sets are not on this machine:", *lines]),
        where=huggingface_hub.constants.HF_HUB_CACHE,
        todo="on a machine with a network run mteb.get_task(NAME).load_data() and copy its cache (HF_HOME) here;"
        " or unset HF_HUB_OFFLINE; or score local files: kinds beir, bright, choice, sts, classification",
    )


@cache
def benchmark_names() -> frozenset[str]:
    """Return the names of all benchmarks of mteb, and their other names."""
    found = get_benchmarks()
    aliases = (alias for benchmark in found for alias in benchmark.aliases or ())
    return frozenset([*(benchmark.name for benchmark in found), *aliases])


@cache
def task_names() -> frozenset[str]:
    """Return the names of all tasks of mteb."""
    return frozenset(task.metadata.name for task in TASK_LIST)


def _narrow(task: AbsTask, suite: config.SuiteTask) -> bool:
    """Keep the subsets that were asked for; return whether any is left."""
    if suite.languages is None and suite.subsets is None:
        return True
    own = set(task.hf_subsets)
    try:
        task.filter_languages(suite.languages, hf_subsets=suite.subsets)
    except ValueError as error:
        if "No subsets were found" in str(error):
            return False
        raise InputError(f"languages: {error}", where=suite.name, todo="ISO 639-3, such as eng") from error
    task.hf_subsets = [subset for subset in task.hf_subsets if subset in own]
    return bool(task.hf_subsets)


def _check_subsets(task: AbsTask, suite: config.SuiteTask) -> None:
    there = list(task.hf_subsets)
    for subset in suite.subsets or ():
        if subset not in there:
            raise InputError(
                f"no subset {subset!r}{did_you_mean(subset, there)}",
                where=suite.name,
                todo=f"subsets there: {', '.join(there)}",
            )


def _data_sets(task: AbsTask) -> list[tuple[str, tuple[str, str]]]:
    """Return (task, (data set, revision)) of a task, or of each task that it is the mean of."""
    if isinstance(task, AbsTaskAggregate):
        return [row for part in task.tasks for row in _data_sets(part)]
    data_set: dict[str, Any] = dict(task.metadata.dataset)
    return [(task.metadata.name, (data_set["path"], data_set["revision"]))]


def _cached(path: str, revision: str) -> bool:
    """Whether the hub's cache holds the revision, or that of the datasets library the data set."""
    snapshot = Path(huggingface_hub.constants.HF_HUB_CACHE, f"datasets--{path.replace('/', '--')}")
    organisation, _, name = path.rpartition("/")
    prepared = Path(
        datasets.config.HF_DATASETS_CACHE,
        "___".join([organisation, camelcase_to_snakecase(name)]).lstrip("_"),
    )
    return (snapshot / "snapshots" / revision).is_dir() or any(prepared.glob(f"*/*/{revision}*"))
