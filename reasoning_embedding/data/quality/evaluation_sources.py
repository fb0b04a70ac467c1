"""Refusing to train on what models are scored with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from reasoning_embedding import config
from reasoning_embedding.errors import InputError

#: Parts of a path that are looked at, from its end: the folders above say where, not what.
_PARTS = 3
_ADVICE = "take it out of data.sources, or set data.force_contaminated: true and say so beside the scores"


def refuse_evaluation_sources(data: config.Data, tasks: Sequence[config.Task] = ()) -> None:
    """Stop when a source of the training data is a known evaluation set or one of `tasks`.

    Parameters
    ----------
    data : config.Data
        Nothing is refused where its ``force_contaminated`` is true.
    tasks : sequence of config.Task
        What the run or its experiment is scored on.

    Raises
    ------
    InputError
        Naming the source, the evaluation set and why.
    """
    if data.force_contaminated:
        return
    for number, source in enumerate(data.sources):
        where = f"data.sources[{number}]"
        _refuse_listed(_names(source), tasks, where)
        for task in tasks:
            if shared := _shared(source, task):
                raise InputError(f"{shared} is also an evaluation task", where=where, todo=_ADVICE)


def refuse_evaluation_rows(
    data: config.Data, sources: Iterable[str], tasks: Sequence[config.Task] = ()
) -> None:
    """Stop when rows, once read, say that they come from a known evaluation set.

    Parameters
    ----------
    data : config.Data
        Nothing is refused where its ``force_contaminated`` is true.
    sources : iterable of str
        Names that rows carry, as in ``Table.sources``.
    tasks : sequence of config.Task
        What the run or its experiment is scored on.

    Raises
    ------
    InputError
        Naming the source, the evaluation set and why.
    """
    if not data.force_contaminated:
        _refuse_listed(sources, tasks, "data.sources")


def _refuse_listed(names: Iterable[str], tasks: Sequence[config.Task], where: str) -> None:
    for name in names:
        for known in _known():
            listed = re.search(known["pattern"], name, re.IGNORECASE)
            if listed and _applies(known["tasks"], tasks):
                what = f"source {name!r} looks like the evaluation set {known['name']}: {known['reason']}"
                raise InputError(what, where=where, todo=_ADVICE)


@cache
def _known() -> list[dict[str, Any]]:
    file = resources.files("reasoning_embedding.data") / "evaluation_sources.json"
    return json.loads(file.read_text(encoding="utf-8"))


def _applies(pattern: str | None, tasks: Sequence[config.Task]) -> bool:
    """Whether a set that is held out for some tasks only is held out here."""
    return pattern is None or any(
        re.search(pattern, task.name) for task in tasks if isinstance(task, config.SuiteTask)
    )


def _names(source: config.Source) -> Iterator[str]:
    if source.name:
        yield source.name
    if isinstance(source, config.HubSource):
        yield source.dataset
    if isinstance(source, config.MixSource):
        yield from source.sources or ()
    for path in _paths(source):
        yield "/".join(path.parts[-_PARTS:])


def _paths(item: config.Source | config.Task) -> list[Path]:
    """Absolute paths of the files and folders that a source or a task names."""
    written = (getattr(item, key, None) or [] for key in ("path", "rows", "corpus", "train", "test"))
    paths = (path for value in written for path in ([value] if isinstance(value, str) else value))
    return [Path(path).expanduser().resolve() for path in paths]


def _shared(source: config.Source, task: config.Task) -> str | None:
    """Name what a source and a task have in common: a file, a folder, or questions of the miniature world."""
    if isinstance(source, config.WorldSource):
        if not isinstance(task, config.WorldTask) or source.seed != task.seed:
            return None
        if task.relations is None:
            return "the held-out split of the world" if source.split == "heldout" else None
        both = [name for name in task.relations if source.relations is None or name in source.relations]
        return f"the world's questions on {', '.join(both)}" if both else None
    for path in _paths(source):
        for theirs in _paths(task):
            if path == theirs or path.is_relative_to(theirs) or theirs.is_relative_to(path):
                return f"{path}"
    return None
