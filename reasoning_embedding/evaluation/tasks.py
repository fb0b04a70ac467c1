"""Local data as tasks of mteb: a folder, or the miniature world."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from reasoning_embedding import config
from reasoning_embedding.data.world import World
from reasoning_embedding.errors import InputError

from .beir import RetrievalData, read_beir

SPLIT = "test"


class LocalRetrieval(AbsTaskRetrieval):
    """A retrieval task of mteb over data in memory; nothing is fetched.

    Parameters
    ----------
    name : str
        The task's name; mteb's result file is called after it.
    data : RetrievalData
        Its instruction becomes the query prompt of the metadata, its fingerprint the data set's revision.

    Notes
    -----
    A query's own id is not taken out of its results: in local folders an id that queries and corpus share
    is chance as often as it is identity.
    """

    k_values = (1, 3, 5, 10, 20, 100)

    def __init__(self, name: str, data: RetrievalData) -> None:
        self.data = data
        self.metadata = TaskMetadata(
            name=name,
            description=f"Retrieval of {len(data.corpus)} local documents by {len(data.queries)} queries.",
            dataset={"path": f"local/{name}", "revision": data.fingerprint},
            prompt={"query": data.instruction} if data.instruction else None,
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            eval_splits=[SPLIT],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            license="not specified",
            is_public=False,
        )
        super().__init__()
        split = RetrievalSplitData(
            corpus=_rows(data.corpus), queries=_rows(data.queries), relevant_docs=data.qrels, top_ranked=None
        )
        self.dataset = {"default": {SPLIT: split}}
        self.data_loaded = True

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the data came with the task."""


def _rows(texts: dict[str, str]) -> Dataset:
    return Dataset.from_dict({"id": list(texts), "text": list(texts.values())})


def world_data(seed: int = 0) -> RetrievalData:
    """Return the held-out questions of a miniature world against the documents of ALL its facts.

    The corpus is the 160 documents, one a fact, not only the 32 of the held-out pairs: 128 of them were
    positives in training, which makes the task the harder one, and chance R@1 is 1/160.
    """
    world = World(seed)
    documents = world.documents()
    pairs = world.pairs("heldout")
    return RetrievalData(
        corpus={f"f{index:03d}": document for index, document in enumerate(documents)},
        queries={f"q{index:02d}": question for index, (question, _, _) in enumerate(pairs)},
        qrels={
            f"q{index:02d}": {f"f{documents.index(document):03d}": 1}
            for index, (_, document, _) in enumerate(pairs)
        },
    )


def load_task(task: config.Task) -> LocalRetrieval:
    """Read a task of the configuration.

    Raises
    ------
    InputError
        When its folder is not a whole BEIR-style folder.
    """
    if isinstance(task, config.WorldTask):
        return LocalRetrieval(task.name, world_data(task.seed))
    folder = Path(task.path).expanduser()
    return LocalRetrieval(task_name(task), read_beir(folder, instruction=task.instruction))


def task_name(task: config.Task) -> str:
    """Return the name a task is reported under: its own, or its folder's."""
    if isinstance(task, config.WorldTask) or task.name is not None:
        return cast("str", task.name)
    return Path(task.path).expanduser().resolve().name


def load_tasks(tasks: Sequence[config.Task]) -> list[LocalRetrieval]:
    """Read all tasks before the first is scored, so that a faulty one costs no time.

    Raises
    ------
    InputError
        When two tasks share a name, or a folder is faulty.
    """
    names = [task_name(task) for task in tasks]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise InputError(
            f"two tasks are named {double!r}", where="evaluation.tasks", todo="give one a 'name'"
        )
    return [load_task(task) for task in tasks]
