"""From the name of a model to a search over a pool of documents, with vectors on disk that outlive a kill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.checkpoints import read_provenance
from reasoning_embedding.checkpoints.references import resolve
from reasoning_embedding.data.mining.vectors import Encode, embed_texts
from reasoning_embedding.errors import InputError, SetupError
from reasoning_embedding.progress import Report

if TYPE_CHECKING:
    from reasoning_embedding.data import Table
    from reasoning_embedding.data.mining.neighbours import Search

#: The name that stands for BM25 where a model is asked for.
BM25 = "bm25"


@dataclass(frozen=True)
class Searcher:
    """Who scores documents, and how the best are found.

    Parameters
    ----------
    model : str
        A checkpoint (``RUN@200``, a folder), any SentenceTransformer (folder or Hub id), or ``bm25``.
    revision : str or None
        Of a Hub id.
    faiss : str or None
        FAISS's description of an index, such as ``Flat`` or ``IVF1024,Flat``; None: exact search in blocks.
    max_tokens : int, optional
        Longer texts are cut. Absent: at the model's own limit.
    query_template : str
        Prompt of a query that has an instruction; holds ``{instruction}``.
    document_prompt : str
        Put before every document.
    """

    model: str
    revision: str | None = None
    faiss: str | None = None
    max_tokens: int | None = None
    query_template: str = config.Data.model_fields["query_template"].default
    document_prompt: str = ""

    def __post_init__(self) -> None:
        if self.model == BM25 and self.faiss is not None:
            raise InputError(
                "BM25 has no vectors to index", where="--faiss", todo="leave it out, or name a model"
            )
        if "{instruction}" not in self.query_template:
            raise InputError("it must contain {instruction}", where="--query-template")

    def identity(self) -> dict[str, Any]:
        """Return what decides the scores."""
        found = resolve(self.model) if self.model != BM25 else None
        known = found and isinstance(found.path, Path) and read_provenance(found.path) is not None
        return {**vars(self), "content": found.content if found and known else None}


def named_searcher(
    model: str,
    *,
    revision: str | None = None,
    faiss: str | None = None,
    max_tokens: int | None = None,
    query_template: str | None = None,
    document_prompt: str = "",
) -> Searcher:
    """Return who scores documents; a template that is None is the usual one.

    Raises
    ------
    InputError
        As for :class:`Searcher`.
    """
    found = Searcher(model, revision, faiss, max_tokens, document_prompt=document_prompt)
    return found if query_template is None else replace(found, query_template=query_template)


def open_search(
    searcher: Searcher,
    queries: Sequence[tuple[str, str]],
    documents: Sequence[str],
    minable: int,
    folder: Path,
    report: Report,
) -> Search:
    """Make queries and documents comparable.

    Parameters
    ----------
    searcher : Searcher
        The model and the way to search.
    queries : sequence of (str, str)
        Instruction and text.
    documents : sequence of str
        The first `minable` of them may be found.
    minable : int
        From 1.
    folder : Path
        Receives the vectors; those that are there already are not made again.
    report : callable
        Takes lines of progress.

    Raises
    ------
    InputError
        If the model cannot be loaded or gives vectors that are not finite.
    SetupError
        If FAISS or bm25s is asked for and missing, or the folder cannot be written.
    """
    from reasoning_embedding.data.mining.neighbours import ExactSearch, FaissSearch, ScoreSearch
    from reasoning_embedding.data.views import View

    if searcher.model == BM25:
        try:
            from reasoning_embedding.data.mining import bm25
        except ImportError as error:
            todo = "pip install 'reasoning-embedding[eval]'"
            raise SetupError("bm25s is not installed", where="--model bm25", todo=todo) from error
        score = bm25.bm25_scorer(bm25.BM25(), documents)
        return ScoreSearch(lambda query: score(queries[query][1]), minable)
    encode = load_encoder(searcher)
    template = searcher.query_template

    def prompted(query: tuple[str, str]) -> tuple[str, str]:
        return template.replace("{instruction}", query[0]) if query[0] else "", query[1]

    asked = embed_texts(folder, "queries", View(queries, None, prompted), encode, report)
    pairs = View(documents, None, lambda text: (searcher.document_prompt, text))
    answers = embed_texts(folder, "documents", pairs, encode, report)
    if searcher.faiss is None:
        return ExactSearch(asked, answers, minable)
    return FaissSearch(asked, answers, minable, searcher.faiss)


def scored(searcher: Searcher, table: Table, folder: Path, report: Report) -> Table:
    """Return a table whose rows carry the searcher's scores of their own positives and negatives.

    Parameters
    ----------
    searcher : Searcher
        The model; how it would search plays no part.
    table : Table
        Queries with their instruction as prompt.
    folder : Path
        Receives the vectors.
    report : callable
        Takes lines of progress.

    Raises
    ------
    InputError, SetupError
        As in :func:`open_search`.
    """
    from reasoning_embedding.data.views import View

    asked, query = np.unique(table.query, return_inverse=True)
    lists = (table.positives, table.negatives)
    own = np.unique(np.concatenate([each.values for each in lists]))
    queries, documents = View(table.texts, asked), View(table.texts, own, lambda pair: pair[1])
    search = open_search(replace(searcher, faiss=None), queries, documents, len(documents), folder, report)
    scores = [
        search.scores(np.repeat(query, each.lengths), np.searchsorted(own, each.values)) for each in lists
    ]
    return replace(table, positive_scores=scores[0], negative_scores=scores[1])


def load_encoder(searcher: Searcher) -> Encode:
    """Open a model of any kind; see :func:`reasoning_embedding.checkpoints.models.open_embedder`.

    Raises
    ------
    InputError
        If there is no such model, or it is no embedder.
    """
    import torch

    from reasoning_embedding.checkpoints.models import open_embedder

    found, limit = resolve(searcher.model), searcher.max_tokens
    model = replace(found, revision=searcher.revision or found.revision)
    embedder = open_embedder(model, device="cuda" if torch.cuda.is_available() else "cpu")
    return lambda texts, prompt: embedder.encode(texts, prompt=prompt, max_tokens=limit)
