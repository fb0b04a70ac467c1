"""The documents that score best for a query: exact in blocks, through FAISS, or by any function of scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from reasoning_embedding.data.ragged import Ragged
from reasoning_embedding.errors import SetupError

#: Documents scored at a time: with a block of queries the bound of memory.
DOCUMENTS = 16_384
#: Candidates beyond those asked for, so that float32 rounding at the cut cannot lose one of them.
_SLACK = 8
#: Vectors an approximate index is trained on, at most.
_TRAINING = 262_144


class Search(Protocol):
    """Candidates of queries among the first `minable` documents, and scores of any pairs.

    Attributes
    ----------
    minable : int
        Documents that may be candidates; later ones (positives from elsewhere) only have scores.
    block : int
        Queries worth handing over at a time.
    """

    minable: int
    block: int

    def candidates(self, queries: np.ndarray, k: int, banned: Ragged) -> list[np.ndarray]:
        """Return for each query at least its best `k` documents that are not `banned` for it (ascending ids)."""
        ...

    def scores(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Return the float32 score of each pair; pairs of one query stand together."""
        ...


class ExactSearch:
    """Dot products with every document, a block of documents at a time.

    Parameters
    ----------
    queries, documents : np.ndarray
        (q, D) and (n, D) float32, in memory or memory-mapped; unit vectors make it cosine similarity.
    minable : int, optional
        Only the first this many documents are candidates; absent: all.

    Notes
    -----
    The products run on the threads that the BLAS of numpy was given. Memory beside the inputs is a block of
    queries times 16,384 scores. Scores that leave this class are float64 products rounded to float32, so they
    do not depend on blocks or threads.
    """

    def __init__(self, queries: np.ndarray, documents: np.ndarray, minable: int | None = None) -> None:
        self._queries, self._documents = queries, documents
        self.minable = len(documents) if minable is None else minable
        self.block = 256

    def candidates(self, queries: np.ndarray, k: int, banned: Ragged) -> list[np.ndarray]:
        """See :class:`Search`."""
        vectors = np.asarray(self._queries[queries])
        k += _SLACK
        owner = np.repeat(np.arange(len(queries)), banned.lengths)
        best = [(np.zeros(0, np.int64), np.zeros(0, np.float32))] * len(queries)
        for start in range(0, self.minable, DOCUMENTS):
            block = np.asarray(self._documents[start : min(start + DOCUMENTS, self.minable)])
            scores = vectors @ block.T
            inside = (banned.values >= start) & (banned.values < start + len(block))
            scores[owner[inside], banned.values[inside] - start] = -np.inf
            for row, (ids, values) in enumerate(best):
                new = best_of(scores[row], k)
                ids, values = np.concatenate([ids, new + start]), np.concatenate([values, scores[row, new]])
                kept = np.sort(best_of(values, k))
                best[row] = (ids[kept], values[kept])
        return [ids for ids, _ in best]

    def scores(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """See :class:`Search`."""
        values = np.empty(len(queries), np.float32)
        for query, span in _runs(queries):
            vector = np.asarray(self._queries[query], np.float64)
            values[span] = np.asarray(self._documents[documents[span]], np.float64) @ vector
        return values


class FaissSearch(ExactSearch):
    """Candidates from a FAISS index of inner products; scores as in :class:`ExactSearch`.

    Parameters
    ----------
    queries, documents, minable
        As in :class:`ExactSearch`.
    factory : str
        FAISS's description of the index: ``Flat`` gives what :class:`ExactSearch` gives; ``IVF1024,Flat`` or
        ``HNSW32`` are approximate and may miss candidates, never misstate a score.

    Raises
    ------
    SetupError
        If FAISS is not installed, or refuses the description.
    """

    def __init__(
        self, queries: np.ndarray, documents: np.ndarray, minable: int | None = None, factory: str = "Flat"
    ) -> None:
        super().__init__(queries, documents, minable)
        self._index = self._build(factory)

    def _build(self, factory: str) -> Any:
        try:
            import faiss
        except ImportError as error:
            todo = "pip install 'reasoning-embedding[mining]', or use the exact back end"
            raise SetupError("FAISS is not installed", where="--faiss", todo=todo) from error
        documents = self._documents[: self.minable]
        try:
            index = faiss.index_factory(documents.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
            if not index.is_trained:
                step = -(-len(documents) // _TRAINING)
                index.train(np.ascontiguousarray(documents[::step], np.float32))
            for start in range(0, len(documents), DOCUMENTS):
                index.add(np.ascontiguousarray(documents[start : start + DOCUMENTS], np.float32))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1][:200]
            todo = "use Flat, HNSW32 or IVF<lists>,Flat with fewer lists than documents"
            raise SetupError(
                f"FAISS refuses the index ({reason})", where=f"--faiss {factory}", todo=todo
            ) from error
        return index

    def candidates(self, queries: np.ndarray, k: int, banned: Ragged) -> list[np.ndarray]:
        """See :class:`Search`."""
        wanted = k + _SLACK + int(banned.lengths.max(initial=0))
        vectors = np.ascontiguousarray(self._queries[queries], np.float32)
        _, found = self._index.search(vectors, min(wanted, self.minable))
        return [np.setdiff1d(ids[ids >= 0], banned[row]) for row, ids in enumerate(found.astype(np.int64))]


class ScoreSearch:
    """Candidates by a function that scores every document for a query, such as BM25.

    Parameters
    ----------
    score : callable
        Query index -> (n,) scores of all documents.
    minable : int
        Only the first this many documents are candidates.
    floor : float
        Documents that score no more than this are no candidates: BM25's 0 means no word in common.
    """

    def __init__(self, score: Callable[[int], np.ndarray], minable: int, floor: float = 0.0) -> None:
        self._score, self._floor = score, floor
        self.minable = minable
        self.block = 1  # the scores of one query are held at a time
        self._last: tuple[int, np.ndarray] | None = None

    def candidates(self, queries: np.ndarray, k: int, banned: Ragged) -> list[np.ndarray]:
        """See :class:`Search`."""
        found = []
        for row, query in enumerate(queries.tolist()):
            scores = self._all(query)[: self.minable].copy()
            scores[scores <= self._floor] = -np.inf
            own = banned[row]
            scores[own[own < self.minable]] = -np.inf
            found.append(np.sort(best_of(scores, k)))
        return found

    def scores(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """See :class:`Search`."""
        values = np.empty(len(queries), np.float32)
        for query, span in _runs(queries):
            values[span] = self._all(query)[documents[span]]
        return values

    def _all(self, query: int) -> np.ndarray:
        if self._last is None or self._last[0] != query:
            self._last = (query, np.asarray(self._score(query), np.float32))
        return self._last[1]


def _runs(queries: np.ndarray) -> Iterator[tuple[int, slice]]:
    """Each run of one query, and where it is."""
    starts = np.flatnonzero(np.diff(queries, prepend=-1)).tolist()
    for start, end in zip(starts, [*starts, len(queries)][1:], strict=True):
        yield int(queries[start]), slice(start, end)


def best_of(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the places of the `k` highest of (n,) scores, highest first, ties by place; never one of -inf."""
    # Everything as high as the k-th, so that ties at the cut are broken by place and not by partition.
    lowest = np.partition(scores, -k)[-k] if k < len(scores) else -np.inf
    places = np.flatnonzero(scores >= lowest)
    places = places[np.argsort(-scores[places], kind="stable")][:k]
    return places[scores[places] > -np.inf]
