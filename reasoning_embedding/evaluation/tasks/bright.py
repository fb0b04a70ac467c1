"""BRIGHT from a local folder laid out like the original data set, excluded documents honoured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mteb.get_tasks import TASK_LIST

from reasoning_embedding.config.reading.suggestions import did_you_mean
from reasoning_embedding.data.beir import RetrievalData, read_objects
from reasoning_embedding.data.readers import read_records
from reasoning_embedding.errors import InputError

from .retrieval import LocalRetrieval, WrappedSearch, as_search

_LAYOUT = "lay it out like xlangai/BRIGHT: {examples,documents,long_documents}/SUBJECT*.parquet (or .jsonl)"
_ENDINGS = (".parquet", ".jsonl", ".jsonl.gz")
#: What stands in ``excluded_ids`` where nothing is excluded.
_NOTHING = "N/A"

#: Query id -> ids of documents that it must not be given.
Excluded = dict[str, frozenset[str]]


class LocalBright(LocalRetrieval):
    """Retrieval where some documents do not count for some queries.

    Parameters
    ----------
    name : str
        The task's name.
    data : RetrievalData
        Corpus, queries and judgements.
    excluded : dict
        Query id -> ids; as a rule the documents that the query itself was taken from.

    Notes
    -----
    mteb ranks, for each query, the list of all documents but the excluded ones. Here as many more documents
    as one query excludes are searched, and the excluded ones dropped: the same ranking, without a list of
    the whole corpus for every query.
    """

    def __init__(self, name: str, data: RetrievalData, excluded: Excluded) -> None:
        self.excluded = excluded
        super().__init__(name, data, {query: sorted(names) for query, names in excluded.items()})

    def _evaluate_subset(self, model: Any, data_split: Any, **kwargs: Any) -> Any:
        return super()._evaluate_subset(
            _ExcludingSearch(as_search(model), self.excluded), data_split, **kwargs
        )


class _ExcludingSearch(WrappedSearch):
    """A search whose results hold none of a query's excluded documents."""

    def __init__(self, search: Any, excluded: Excluded) -> None:
        super().__init__(search)
        self.excluded = excluded

    def search(self, queries: Any, *, top_k: int, **kwargs: Any) -> dict[str, dict[str, float]]:
        most = max((len(names) for names in self.excluded.values()), default=0)
        found = self.search_model.search(queries=queries, top_k=top_k + most, **kwargs)
        return {query: self._kept(query, scores, top_k) for query, scores in found.items()}

    def _kept(self, query: str, scores: Mapping[str, float], top_k: int) -> dict[str, float]:
        excluded = self.excluded.get(query, frozenset())
        allowed = [(name, score) for name, score in scores.items() if name not in excluded]
        return dict(sorted(allowed, key=lambda item: -item[1])[:top_k])


def read_bright(
    folder: Path, subject: str, *, long: bool = False, instruction: str | None = None
) -> tuple[RetrievalData, Excluded]:
    """Read one subject.

    Parameters
    ----------
    folder : Path
        Holds ``examples``, ``documents`` and, for `long`, ``long_documents``: in each, the subject's files,
        ``biology.jsonl`` or ``biology-00000-of-00001.parquet``.
    subject : str
        Such as ``biology``.
    long : bool
        Whole pages instead of passages; judged by ``gold_ids_long``.
    instruction : str, optional
        What queries are asked with; absent, the one mteb asks this subject with. Empty: none.

    Raises
    ------
    InputError
        For a missing file or field, an id that occurs twice, or a right document that is not there or is
        excluded.
    """
    kind, gold = ("long_documents", "gold_ids_long") if long else ("documents", "gold_ids")
    corpus: dict[str, str] = {}
    for where, row in _rows(folder, kind, subject):
        name = _text(row, "id", where)
        if name in corpus:
            raise InputError(f"document {name!r} occurs twice", where=where, todo="ids are unique")
        corpus[name] = row["content"] if isinstance(row.get("content"), str) else _text(row, "content", where)
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    excluded: Excluded = {}
    for where, row in _rows(folder, "examples", subject):
        name = _text(row, "id", where)
        if name in queries:
            raise InputError(f"query {name!r} occurs twice", where=where, todo="ids are unique")
        queries[name] = _text(row, "query", where)
        right = _ids(row, gold, where)
        excluded[name] = frozenset(_ids(row, "excluded_ids", where)) - {_NOTHING}
        if not right:
            raise InputError(f"query {name!r} has no {gold}", where=where, todo="every query has a document")
        for document in right:
            if document not in corpus:
                raise InputError(
                    f"document {document!r} of query {name!r} is not in {kind}", where=where, todo=_LAYOUT
                )
            if document in excluded[name]:
                raise InputError(f"document {document!r} is both right and excluded", where=where)
        qrels[name] = dict.fromkeys(right, 1)
    if instruction is None:
        instruction = _mteb_instruction(subject, long)
    data = RetrievalData(corpus, queries, qrels, instruction or None)
    return data, {name: names for name, names in excluded.items() if names}


def _rows(folder: Path, kind: str, subject: str) -> Iterator[tuple[str, dict[str, Any]]]:
    place = folder / kind
    if not place.is_dir():
        raise InputError(f"no folder {kind!r}", where=str(folder), todo=_LAYOUT)
    files = {
        path: path.name.removesuffix(ending).partition("-0")[0]
        for path in sorted(place.iterdir())
        for ending in _ENDINGS
        if path.name.endswith(ending)
    }
    own = [path for path, name in files.items() if name == subject]
    if not own:
        raise InputError(
            f"no file of subject {subject!r}{did_you_mean(subject, sorted(set(files.values())))}",
            where=str(place),
            todo=_LAYOUT,
        )
    for path in own:
        yield from _parquet(path) if path.suffix == ".parquet" else read_objects(path)


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, record in read_records(path):
        if not isinstance(record, dict):
            raise InputError(str(record)[:200], where=where, todo="fetch the file again")
        yield where, record


def _text(row: Mapping[str, Any], field: str, where: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value:
        raise InputError(f"{field!r} is missing or not a string", where=where, todo=_LAYOUT)
    return value


def _ids(row: Mapping[str, Any], field: str, where: str) -> list[str]:
    value = row.get(field)
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{field!r} is missing or not a list of ids", where=where, todo=_LAYOUT)
    return value


def _mteb_instruction(subject: str, long: bool) -> str | None:
    """Return the query prompt of mteb's task of a subject, if it has one: BrightEarthScienceLongRetrieval."""
    name = f"bright{subject.replace('_', '')}{'long' if long else ''}retrieval"
    for task in TASK_LIST:
        if task.metadata.name.lower() == name and isinstance(task.metadata.prompt, dict):
            return task.metadata.prompt.get("query")
    return None
