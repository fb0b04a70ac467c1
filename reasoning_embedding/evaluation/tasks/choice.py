"""Multiple choice over a BEIR-style folder: is the right answer put before the wrong ones?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reasoning_embedding.data.beir import RetrievalData, find_file, read_objects
from reasoning_embedding.errors import InputError

from .retrieval import LocalRetrieval, WrappedSearch, as_search

#: Query id -> ids of its candidates.
Candidates = dict[str, list[str]]


class LocalChoice(LocalRetrieval):
    """Retrieval from the whole corpus, and beside it the accuracy among each query's own candidates.

    Parameters
    ----------
    name : str
        The task's name.
    data : RetrievalData
        Corpus, queries and judgements.
    candidates : dict
        Query id -> ids of at least two documents, one of them judged right.

    Notes
    -----
    Metrics beside those of retrieval: ``choice_accuracy``, and ``choice_chance``, the mean of one over the
    number of candidates. A tie is shared: of n best candidates, k of them right, k / n counts, so that a
    model that gives every candidate one score is at chance and not at the order of the file.
    """

    def __init__(self, name: str, data: RetrievalData, candidates: Candidates) -> None:
        self.candidates = candidates
        super().__init__(name, data, candidates)

    def _evaluate_subset(self, model: Any, data_split: Any, **kwargs: Any) -> Any:
        self._search = _ChoosingSearch(as_search(model), self.candidates)
        return super()._evaluate_subset(self._search, data_split, **kwargs)

    def task_specific_scores(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return the choice accuracy of the search that went before, and its chance."""
        credit = choice_credit(self._search.among_candidates, self.candidates, self.data.qrels)
        chance = [1 / len(self.candidates[query]) for query in credit]
        return {
            "choice_accuracy": sum(credit.values()) / len(credit),
            "choice_chance": sum(chance) / len(chance),
        }


class _ChoosingSearch(WrappedSearch):
    """A search that, having ranked the corpus, ranks each query's candidates too."""

    def __init__(self, search: Any, candidates: Candidates) -> None:
        super().__init__(search)
        self.candidates = candidates
        self.among_candidates: dict[str, dict[str, float]] = {}

    def index(self, corpus: Any, **kwargs: Any) -> None:
        self._corpus, self._index_kwargs = corpus, kwargs
        super().index(corpus, **kwargs)

    def search(self, queries: Any, *, top_k: int, **kwargs: Any) -> dict[str, dict[str, float]]:
        found = self.search_model.search(queries=queries, top_k=top_k, **kwargs)
        # mteb's searches forget their index once they have searched.
        self.search_model.index(corpus=self._corpus, **self._index_kwargs)
        most = max(len(names) for names in self.candidates.values())
        among = {**kwargs, "top_ranked": self.candidates}
        self.among_candidates = self.search_model.search(queries=queries, top_k=most, **among)
        return found


def choice_credit(
    scores: Mapping[str, Mapping[str, float]], candidates: Candidates, qrels: Mapping[str, Mapping[str, int]]
) -> dict[str, float]:
    """Return each query's share of the right answer, 0 to 1.

    Parameters
    ----------
    scores : mapping
        Query id -> document id -> score; a candidate that is not there was found by nothing and stands last.
    candidates : dict
        Query id -> ids.
    qrels : mapping
        Query id -> document id -> grade; above 0 is right.
    """
    credit = {}
    for query, found in scores.items():
        values = {name: found.get(name, float("-inf")) for name in candidates[query]}
        best = [name for name, value in values.items() if value == max(values.values())]
        credit[query] = sum(qrels[query].get(name, 0) > 0 for name in best) / len(best)
    return credit


def read_candidates(folder: Path, data: RetrievalData) -> Candidates:
    """Read ``candidates.jsonl`` (``.gz`` too): {"query-id": "q0", "corpus-ids": ["d0", "d1"]} a line.

    Raises
    ------
    InputError
        For an unknown id, fewer than two candidates, none of them right, or a query without candidates.
    """
    path = find_file(folder, "candidates.jsonl")
    candidates: Candidates = {}
    for where, row in read_objects(path):
        query, names = row.get("query-id"), row.get("corpus-ids")
        if not isinstance(query, str) or not isinstance(names, list) or len(set(map(str, names))) < 2:
            raise InputError(
                "a query id and two distinct candidates or more are needed",
                where=where,
                todo='write {"query-id": "q0", "corpus-ids": ["d0", "d1"]}',
            )
        if unknown := [name for name in names if name not in data.corpus]:
            raise InputError(f"document {unknown[0]!r} is not in the corpus file", where=where)
        if query in candidates:
            raise InputError(f"query {query!r} has candidates twice", where=where, todo="keep one of them")
        if query not in data.queries:
            continue  # without a judgement of positive grade it was left out
        if not any(data.qrels[query].get(name, 0) > 0 for name in names):
            raise InputError(f"no candidate of query {query!r} is judged right", where=where)
        candidates[query] = names
    if missing := [query for query in data.queries if query not in candidates]:
        raise InputError(f"{len(missing)} queries have no candidates, {missing[0]!r} first", where=str(path))
    return candidates
