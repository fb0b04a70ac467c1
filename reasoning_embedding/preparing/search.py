"""From the name of a model to a search over a pool of documents, with vectors on disk that outlive a kill."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.checkpoints import read_provenance
from reasoning_embedding.checkpoints.references import resolve
from reasoning_embedding.errors import InputError, SetupError
from reasoning_embedding.files import explain_disk_errors, write_json

if TYPE_CHECKING:
    from reasoning_embedding.data import Table
    from reasoning_embedding.data.mining.neighbours import Search

Report = Callable[[str], None]
#: Texts and their prompt -> (n, D) unit vectors.
Encode = Callable[[Sequence[str], str], np.ndarray]
#: The name that stands for BM25 where a model is asked for.
BM25 = "bm25"
#: Texts embedded between two moments at which a stopped job can go on.
_CHUNK = 4096


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
    max_tokens : int
        Longer texts are cut.
    query_template : str
        Prompt of a query that has an instruction; holds ``{instruction}``.
    document_prompt : str
        Put before every document.
    """

    model: str
    revision: str | None = None
    faiss: str | None = None
    max_tokens: int = 512
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


class Countdown:
    """Lines of progress with the time left, one in ten seconds at most.

    Parameters
    ----------
    report : callable
        Takes lines.
    what : str
        What is counted, such as ``rows``.
    total, done : int
        How many there are, and how many an earlier process did.
    """

    def __init__(self, report: Report, what: str, total: int, done: int = 0) -> None:
        self._report, self._what, self._total, self._first = report, what, total, done
        self._start = self._said = time.monotonic()

    def __call__(self, done: int) -> None:
        """Say how far it is, if it is time to."""
        now = time.monotonic()
        if now - self._said < 10 and done < self._total:
            return
        self._said = now
        left = (self._total - done) * (now - self._start) / max(done - self._first, 1)
        rest = "" if done >= self._total else f", {_duration(left)} left"
        self._report(f"{self._what}: {done:,} of {self._total:,}{rest}")


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


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
    from reasoning_embedding.data.texts import View

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

    asked = encoded(folder, "queries", View(queries, None, prompted), encode, report)
    pairs = View(documents, None, lambda text: (searcher.document_prompt, text))
    answers = encoded(folder, "documents", pairs, encode, report)
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
    from reasoning_embedding.data.texts import View

    asked, query = np.unique(table.query, return_inverse=True)
    lists = (table.positives, table.negatives)
    own = np.unique(np.concatenate([each.values for each in lists]))
    queries, documents = View(table.texts, asked), View(table.texts, own, lambda pair: pair[1])
    search = open_search(replace(searcher, faiss=None), queries, documents, len(documents), folder, report)
    scores = [
        search.scores(np.repeat(query, np.diff(each.offsets)), np.searchsorted(own, each.values))
        for each in lists
    ]
    return replace(table, positive_scores=scores[0], negative_scores=scores[1])


def load_encoder(searcher: Searcher) -> Encode:
    """Load a checkpoint of ours with packed attention, or anything else as a SentenceTransformer.

    Raises
    ------
    InputError
        If there is no such model.
    """
    found, limit = resolve(searcher.model), searcher.max_tokens
    folder = found.path
    if isinstance(folder, Path) and read_provenance(folder) is not None:
        import torch

        from reasoning_embedding.checkpoints.embedder import load_embedder

        embedder = load_embedder(folder).to("cuda" if torch.cuda.is_available() else "cpu")
        return lambda texts, prompt: embedder.encode(texts, prompt=prompt, max_tokens=limit)
    todo = "name a checkpoint folder, a SentenceTransformer (folder or Hub id), or bm25"
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(
            str(folder), revision=searcher.revision or found.revision, model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"cannot load the model ({reason})", where=searcher.model, todo=todo) from error
    model.max_seq_length = min(limit, model.max_seq_length or limit)
    # An empty prompt and no prompt are different: none would take the model's default one.
    return lambda texts, prompt: model.encode(
        list(texts), prompt=prompt, normalize_embeddings=True, show_progress_bar=False
    )


def encoded(
    folder: Path, name: str, texts: Sequence[tuple[str, str]], encode: Encode, report: Report
) -> np.ndarray:
    """Return the vectors of (prompt, text) pairs, memory-mapped; goes on where a stopped process was.

    Parameters
    ----------
    folder, name
        ``name.npy`` of the folder holds the vectors, ``name.json`` how many are done.
    texts : sequence of (str, str)
        Prompt and text; at least one.
    encode : callable
        Gives unit vectors.
    report : callable
        Takes lines of progress.

    Raises
    ------
    InputError
        If a vector is not finite.
    """
    file, record = folder / f"{name}.npy", folder / f"{name}.json"
    with explain_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    done = json.loads(record.read_text())["done"] if record.exists() else 0
    vectors = np.load(file, mmap_mode="r+") if done else None
    countdown = Countdown(report, f"{name} embedded", len(texts), done)
    for start in range(done, len(texts), _CHUNK):
        chunk = texts[start : start + _CHUNK]
        found = np.empty((0, 0))
        for prompt in dict.fromkeys(prompt for prompt, _ in chunk):
            places = [place for place, pair in enumerate(chunk) if pair[0] == prompt]
            values = encode([chunk[place][1] for place in places], prompt)
            if not found.size:
                found = np.empty((len(chunk), values.shape[1]), np.float32)
            found[places] = values
        if not np.isfinite(found).all():
            bad = chunk[int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])][1]
            raise InputError(
                "the model's vector is not finite", where=f"text {bad[:60]!r}", todo="check the model"
            )
        with explain_disk_errors(file):
            if vectors is None:
                shape = (len(texts), found.shape[1])
                vectors = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
            vectors[start : start + len(chunk)] = found
            vectors.flush()
        write_json(record, {"done": start + len(chunk)})
        countdown(start + len(chunk))
    return np.load(file, mmap_mode="r")
