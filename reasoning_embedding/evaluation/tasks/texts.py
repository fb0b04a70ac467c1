"""The texts of evaluation tasks, for comparing them with training data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mteb.abstasks import AbsTask
from mteb.abstasks.aggregated_task import AbsTaskAggregate

from reasoning_embedding import config, isolation
from reasoning_embedding.errors import SetupError

from .loading import load_tasks

#: Columns whose words are no content of a task.
_NO_TEXT = frozenset(
    "id _id uid idx label labels label_text score scores lang language languages split subset source".split()
)


def task_texts(
    tasks: Sequence[config.Task],
) -> Iterator[tuple[str, dict[str, list[str]] | str]]:
    """Yield each task's name and its texts by what they are, or why they cannot be had here.

    Retrieval has ``queries`` and ``documents``, other tasks have ``texts``; what a classification task trains
    its probe on is ``probe texts``. Number sequences are left out: they are generated, not published.

    Parameters
    ----------
    tasks : sequence of config.Task
        Local ones are read here; those of mteb are fetched where that is allowed.

    Raises
    ------
    InputError
        When a local task is faulty or mteb has none of a name.
    """
    with isolation.same_random_state(), isolation.quiet_libraries():
        for task in tasks:
            if isinstance(task, config.NumberSequencesTask):
                continue
            try:
                found = load_tasks([task])
            except SetupError as error:
                yield getattr(task, "name", None) or task.kind, str(error)
                continue
            for one in found:
                yield from _of(one)


def _of(task: AbsTask) -> Iterator[tuple[str, dict[str, list[str]] | str]]:
    if isinstance(task, AbsTaskAggregate):
        for part in task.tasks:
            yield from _of(part)
        return
    mine = not task.data_loaded
    try:
        task.load_data()
    except (OSError, ValueError, RuntimeError) as error:  # what the hub and datasets raise
        yield task.metadata.name, f"{type(error).__name__}: {error}"
        return
    texts: dict[str, list[str]] = {}
    for subset in _subsets(task):
        for split, rows in subset.items():
            if split in task.eval_splits:
                _collect(rows, "texts", texts)
            elif split == getattr(task, "train_split", None):
                _collect(rows, "probe texts", texts)
    if mine:
        task.unload_data()
    yield task.metadata.name, texts


def _subsets(task: AbsTask) -> list[Mapping[str, Any]]:
    """Splits of each subset that is scored; a task of one subset may hold its splits directly."""
    dataset: Any = task.dataset or {}
    kept = [dataset[subset] for subset in task.hf_subsets if subset in dataset]
    return kept or [dataset]


def _collect(rows: Any, kind: str, texts: dict[str, list[str]]) -> None:
    if isinstance(rows, Mapping):  # retrieval: corpus, queries, judgements
        for part, name in (("queries", "queries"), ("corpus", "documents")):
            texts.setdefault(name, []).extend(_joined(rows[part]))
        return
    own = texts.setdefault(kind, [])
    for column, feature in rows.features.items():
        if column not in _NO_TEXT and "string" in str(feature):
            own.extend(_flat(rows[column]))


def _joined(rows: Any) -> list[str]:
    """Texts of a corpus or of queries, each behind its title where it has one, as models are given them."""
    titles = rows["title"] if "title" in rows.column_names else [""] * len(rows)
    return [
        " ".join([title or "", *_flat([text])]).strip()
        for title, text in zip(titles, rows["text"], strict=True)
    ]


def _flat(values: Any) -> Iterator[str]:
    """Strings of a column: of each row one, or a list of them."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from _flat(value)
        elif isinstance(value, dict):  # a turn of a conversation
            yield from _flat([value.get("content")])
