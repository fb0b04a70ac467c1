"""Retrieval over data in memory, as a task of mteb: a folder, or the miniature world."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.models.models_protocols import SearchProtocol
from mteb.models.search_wrappers import SearchEncoderWrapper

from reasoning_embedding.data.beir import RetrievalData
from reasoning_embedding.data.miniature_world import MiniatureWorld

from .local import SPLIT, LocalTask, fingerprint_of, local_metadata


class LocalRetrieval(LocalTask, AbsTaskRetrieval):
    """A retrieval task of mteb over data in memory; nothing is fetched.

    Parameters
    ----------
    name : str
        The task's name; mteb's result file is called after it.
    data : RetrievalData
        Its instruction becomes the query prompt of the metadata, its fingerprint the data set's revision.
    extra : object, optional
        What decides the scores besides `data`, as JSON can hold it: it goes into the fingerprint.

    Notes
    -----
    A query's own id is not taken out of its results: in local folders an id that queries and corpus share
    is chance as often as it is identity.
    """

    k_values = (1, 3, 5, 10, 20, 100)

    def __init__(self, name: str, data: RetrievalData, extra: Any = None) -> None:
        self.data = data
        self.sizes = {
            "queries": len(data.queries),
            "documents": len(data.corpus),
            "unjudged": data.unjudged,
        }
        self.metadata = local_metadata(
            name,
            "Retrieval",
            data.fingerprint if extra is None else fingerprint_of([data.fingerprint, extra]),
            main_score="ndcg_at_10",
            instruction=data.instruction,
            description=f"Retrieval of {len(data.corpus)} local documents by {len(data.queries)} queries.",
        )
        super().__init__()
        split = RetrievalSplitData(
            corpus=_rows(data.corpus), queries=_rows(data.queries), relevant_docs=data.qrels, top_ranked=None
        )
        self.dataset = {"default": {SPLIT: split}}


def _rows(texts: dict[str, str]) -> Dataset:
    return Dataset.from_dict({"id": list(texts), "text": list(texts.values())})


def as_search(model: Any) -> SearchProtocol:
    """Return a model that searches: itself, or mteb's wrapper around an encoder."""
    return model if isinstance(model, SearchProtocol) else SearchEncoderWrapper(model)


class WrappedSearch:
    """A search around another one, for tasks that ask more of it than a ranking of the corpus."""

    def __init__(self, search: Any) -> None:
        self.search_model = search

    @property
    def mteb_model_meta(self) -> Any:
        """Name and revision of the model that searches."""
        return self.search_model.mteb_model_meta

    def index(self, corpus: Any, **kwargs: Any) -> None:
        """Take the documents to search."""
        self.search_model.index(corpus=corpus, **kwargs)


def world_data(seed: int = 0, relations: Collection[str] | None = None) -> RetrievalData:
    """Return the held-out questions of a miniature world against the documents of ALL its facts.

    Parameters
    ----------
    seed : int
        Decides the world.
    relations : collection of str, optional
        In the place of the held-out questions: those on all facts of these relations, in every wording.

    Notes
    -----
    The corpus is the 160 documents, one a fact, not only the 32 of the held-out pairs: 128 of them were
    positives in training, which makes the task the harder one, and chance R@1 is 1/160.
    """
    world = MiniatureWorld(seed)
    documents = world.documents()
    asked = [
        (question, documents[index])
        for index, fact in enumerate(world.facts)
        if relations is not None and fact.relation.name in relations
        for question in fact.questions()
    ]
    pairs = asked or [(question, document) for question, document, _ in world.pairs("heldout")]
    return RetrievalData(
        corpus={f"f{index:03d}": document for index, document in enumerate(documents)},
        queries={f"q{index:02d}": question for index, (question, _) in enumerate(pairs)},
        qrels={
            f"q{index:02d}": {f"f{documents.index(document):03d}": 1}
            for index, (_, document) in enumerate(pairs)
        },
    )
