"""The texts of evaluation tasks: to compare with training data, and to count words in."""

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
#: Where the task types of mteb name their columns of text.
_COLUMN_ATTRIBUTES = (
    "column_names",
    "input_column_name",
    "input1_column_name",
    "input2_column_name",
    "text_column_name",
    "human_summaries_column_name",
    "machine_summaries_column_name",
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


def encoded_texts(task: Any) -> Iterator[str]:
    """Yield every text that an mteb task will have encoded, as often as it stands in its data.

    Parameters
    ----------
    task : AbsTask
        A text task of any type; its data are loaded where they are not. Read are its evaluation splits and,
        of a classification, the one it trains on.
    """
    if not task.data_loaded:
        task.load_data()
    splits = {*task.eval_splits, getattr(task, "train_split", None)}
    columns = set(_strings([getattr(task, name, ()) for name in _COLUMN_ATTRIBUTES]))
    for subset in _subsets(task):
        for data in (data for split, data in subset.items() if split in splits):
            if isinstance(data, Mapping):  # retrieval
                yield from _columns_of(data["corpus"], {"title", "text"})
                yield from _columns_of(data["queries"], {"text"})
            else:
                yield from _columns_of(data, columns)


def _columns_of(data: Any, columns: set[str]) -> Iterator[str]:
    for name in data.column_names:
        if name in columns:
            yield from _strings(list(data[name]))


def _subsets(task: Any) -> list[Mapping[str, Any]]:
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
            own.extend(_strings(list(rows[column])))


def _joined(rows: Any) -> list[str]:
    """Texts of a corpus or of queries, each behind its title where it has one, as models are given them."""
    titles = rows["title"] if "title" in rows.column_names else [""] * len(rows)
    return [
        " ".join([title or "", *_strings(text)]).strip()
        for title, text in zip(titles, rows["text"], strict=True)
    ]


def _strings(value: Any) -> Iterator[str]:
    """Strings of nested lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part)
    elif isinstance(value, dict):  # a turn of a conversation
        yield from _strings(value.get("content"))
