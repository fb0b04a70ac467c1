"""What each text of a task is asked with: from the configuration, else the task's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from mteb.abstasks.abstask import get_abstask_prompt
from mteb.abstasks.task_metadata import TaskMetadata, TaskType
from mteb.types import PromptType

from reasoning_embedding.config.reading.suggestions import did_you_mean
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json

from .tasks.suites import task_names

#: Where a task's data comes from when it is on this machine: ``metadata.dataset["path"]`` begins with it.
LOCAL = "local/"
_SIDES = tuple(side.value for side in PromptType)
_SHAPE = 'write {"TASK": "instruction"} or {"TASK": {"query": "...", "document": "..."}}'


class Instructions:
    """Instructions by task, subset, type of task and side.

    Parameters
    ----------
    given : str, mapping or None
        Keys name a task (``STS22``), one subset of it (``STS22:en``), a type of task (``Retrieval``) or a
        side (``query``, ``document``); the first three may end in ``-query`` or ``-document``. Values are an
        instruction, or a mapping {query, document}. A string is the path of a JSON file of such a mapping.

    Raises
    ------
    InputError
        When the file cannot be read, or a value is neither of the two.

    Notes
    -----
    The first that is there decides, as in mteb: task-side, task, type-side, type, side, then the task's own
    (``metadata.prompt``), then the default of its type. A subset's stand before its task's. An empty string
    is an instruction too: none is sent.

    Documents are asked with nothing unless one of those names the document side; an instruction that names
    no side is for queries, and for texts of tasks that have no sides (STS, classification, clustering).
    """

    def __init__(self, given: str | Mapping[str, str | Mapping[Any, str]] | None = None) -> None:
        self.where = "evaluation.instructions"
        if isinstance(given, str):
            self.where, given = given, _read(Path(given).expanduser())
        self._given = dict(_flatten(given or {}, self.where))

    def for_task(
        self, metadata: TaskMetadata, subset: str = "default", prompt_type: PromptType | None = None
    ) -> str:
        """Return the instruction, or an empty string.

        Parameters
        ----------
        metadata : TaskMetadata
            Of the task.
        subset : str
            The subset being scored; mteb calls the only one of a task ``default``.
        prompt_type : PromptType or None
            Query, document, or None for texts of a task that has no sides.
        """
        side = PromptType(prompt_type) if prompt_type else None
        said = self.said(metadata, subset, side)
        return _own(metadata, side) if said is None else said

    def said(self, metadata: TaskMetadata, subset: str, side: PromptType | None) -> str | None:
        """Return the instruction that was given for such a text, or None: then the task's own counts."""
        for name in (f"{metadata.name}:{subset}", metadata.name, metadata.type):
            for key in _keys(name, side):
                if key in self._given:
                    return self._given[key]
        return self._given.get(side.value) if side is not None else None

    def and_of_tasks(self, given: Mapping[str, str]) -> Instructions:
        """Return these, with instructions that tasks of the configuration name themselves; these come first."""
        found = Instructions()
        found.where, found._given = self.where, {**given, **self._given}
        return found

    def prompt(
        self,
        metadata: TaskMetadata,
        subset: str,
        prompt_type: PromptType | None,
        template: str,
    ) -> str:
        """Return what stands before a text: the filled template, for documents the instruction as it is.

        Parameters
        ----------
        metadata, subset, prompt_type
            As in :meth:`for_task`.
        template : str
            Holds ``{instruction}``. It ends in the words that introduce a query, so documents skip it.
        """
        instruction = self.for_task(metadata, subset, prompt_type)
        if not instruction or prompt_type == PromptType.document:
            return instruction
        return template.replace("{instruction}", instruction)

    def check(self, tasks: Iterable[str]) -> None:
        """Refuse keys that no task can have.

        Parameters
        ----------
        tasks : iterable of str
            Names of the tasks to be scored. Any task of mteb may be named besides, so that one file serves
            many evaluations.

        Raises
        ------
        InputError
            With the nearest known name.
        """
        known = {*tasks, *get_args(TaskType), *_SIDES, *task_names()}
        for key in self._given:
            name = _task_of(key)
            if name not in known:
                raise InputError(
                    f"{name!r} is no task and no type of task{did_you_mean(name, known)}",
                    where=self.where,
                    todo="name a task, TASK:SUBSET, or a type of task such as Retrieval",
                )


def is_asymmetric(metadata: TaskMetadata) -> bool:
    """Whether a task's texts have sides: queries and documents."""
    return "Retrieval" in metadata.type or "Reranking" in metadata.type


def _keys(name: str, side: PromptType | None) -> list[str]:
    """Keys under which an instruction for `side` may stand, the more exact first."""
    if side == PromptType.document:
        return [f"{name}-document"]
    if side == PromptType.query:
        return [f"{name}-query", name]
    return [name, f"{name}-query"]


def _own(metadata: TaskMetadata, side: PromptType | None) -> str:
    own = metadata.prompt
    if isinstance(own, Mapping):
        found = own.get((side or PromptType.query).value)
    else:
        found = None if side == PromptType.document else own
    if found or side == PromptType.document or metadata.dataset["path"].startswith(LOCAL):
        return found or ""
    return get_abstask_prompt(metadata.name)


def _task_of(key: str) -> str:
    for side in _SIDES:
        key = key.removesuffix(f"-{side}")
    return key.split(":", 1)[0]


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return read_json(path, todo=_SHAPE)
    except OSError as error:
        raise InputError(f"cannot be read: {error}", where=str(path), todo=_SHAPE) from error


def _flatten(given: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    """Yield (key, instruction), with {query, document} written as ``key-query`` and ``key-document``."""
    for key, value in given.items():
        if isinstance(value, str):
            yield key, value
            continue
        if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in value.values()):
            raise InputError(f"the instruction of {key!r} is not a string", where=where, todo=_SHAPE)
        for side, text in value.items():
            if side not in _SIDES:
                raise InputError(
                    f"{key!r} has a side {side!r}{did_you_mean(side, _SIDES)}", where=where, todo=_SHAPE
                )
            yield f"{key}-{side}", text
