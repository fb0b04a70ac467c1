"""Our embedders behind mteb's encoder protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.model_meta import ModelMeta
from mteb.models.search_wrappers import SearchEncoderWrapper
from mteb.types import PromptType

from reasoning_embedding.backbones.compression import Compression, ranges_of
from reasoning_embedding.errors import ReasoningEmbeddingError
from reasoning_embedding.progress import Countdown, Report

from .asking import Asking
from .instructions import is_asymmetric
from .sharding import TextEncoder

ORGANISATION = "reasoning_embedding"
_PLURAL = {"query": "queries", "document": "documents", "text": "texts"}


def model_meta(model_name: str, revision: str, **known: Any) -> ModelMeta:
    """Return metadata under which no two models can meet in mteb's cache.

    mteb files results under name and revision and gives local models one name and one revision for all.

    Parameters
    ----------
    model_name : str
        The run or baseline; it is put under the organisation ``reasoning_embedding``.
    revision : str
        :func:`reasoning_embedding.checkpoints.scores.revision_of` for checkpoints.
    **known
        Further fields of :class:`mteb.models.model_meta.ModelMeta`.
    """
    fields = {"name": f"{ORGANISATION}/{model_name}", "revision": revision, "open_weights": True, **known}
    return ModelMeta.create_empty(fields)


_EACH_TASKS_OWN = Asking()


class MtebEncoder:
    """An embedder as mteb's ``EncoderProtocol`` and, for corpora in chunks, its ``SearchProtocol``.

    Parameters
    ----------
    embedder : TextEncoder
        The model.
    meta : ModelMeta
        Its name and revision, see :func:`model_meta`.
    asking : Asking, optional
        What stands before each text; absent: each task's own instruction. None: nothing at all, as lexical models are
        asked.
    corpus_embedder : TextEncoder, optional
        Encodes documents in the place of `embedder`: the same model behind a cache.
    max_tokens : int, optional
        Longer texts are cut; absent: at the model's own limit.
    compression : Compression, optional
        What is kept of a vector before texts are compared; absent: all of it.
    pack_tokens : int, optional
        Tokens of one forward; absent: what suits the device.
    chunk_documents : int
        Documents of a corpus encoded and searched at a time; of the others only each query's best are kept.
    report : callable, optional
        Takes a line of progress.
    """

    def __init__(
        self,
        embedder: TextEncoder,
        meta: ModelMeta,
        *,
        asking: Asking | None = _EACH_TASKS_OWN,
        corpus_embedder: TextEncoder | None = None,
        max_tokens: int | None = None,
        compression: Compression | None = None,
        pack_tokens: int | None = None,
        chunk_documents: int = 50_000,
        report: Report | None = None,
    ) -> None:
        self.embedder = embedder
        self.corpus_embedder = corpus_embedder or embedder
        self._meta = meta
        self.asking = asking
        self.max_tokens, self.pack_tokens = max_tokens, pack_tokens
        self.compression = compression or Compression()
        #: Task, subset and split -> what int8 steps lie between; see :meth:`calibrate`.
        self._ranges: dict[tuple[str, str, str], np.ndarray] = {}
        #: Of the task that is being scored, where its queries wait for the range of its documents.
        self._waiting: tuple[str, str, str] | None = None
        self.report = report
        #: Task -> subset -> side -> what was put before its texts since the record was last cleared.
        self.sent: dict[str, dict[str, dict[str, str]]] = {}
        self._search = SearchEncoderWrapper(self, corpus_chunk_size=chunk_documents)

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Name and revision that results are filed under."""
        return self._meta

    def prompt(self, metadata: TaskMetadata, subset: str, prompt_type: PromptType | None) -> str:
        """Return what stands before a text of this task."""
        return "" if self.asking is None else self.asking.prompt(metadata, subset, prompt_type)

    def encode(
        self,
        inputs: Iterable[dict[str, Any]],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Encode mteb's batches of texts.

        Raises
        ------
        ReasoningEmbeddingError
            When an embedding is not finite: a ranking of NaN would pass for a score.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        side = "text" if prompt_type is None else PromptType(prompt_type).value
        prompt = self.prompt(task_metadata, hf_subset, prompt_type)
        self.sent.setdefault(task_metadata.name, {}).setdefault(hf_subset, {})[side] = prompt
        vectors = self._embed(texts, task_metadata, hf_subset, side, prompt)
        if self.compression.quantize is None:
            return vectors
        signs = is_asymmetric(task_metadata)
        key = (task_metadata.name, hf_subset, hf_split) if signs else (task_metadata.name, "", "")
        if self.compression.quantize == "binary":
            return self.compression.scored(vectors, signs=signs)
        if side == "query" and signs:
            self._waiting = key  # a query is coded by the range of the documents, which come after it
            return vectors
        if side == "text":
            self._waiting = None
        if key not in self._ranges:
            self._ranges[key] = ranges_of(vectors)
        return self.compression.scored(vectors, self._ranges[key])

    def calibrate(self, texts: list[str], metadata: TaskMetadata, subset: str) -> None:
        """Find the range of each entry over all texts of a task without sides, before it is scored with int8.

        Of a task with sides the first documents that are encoded give it.
        """
        prompt = self.prompt(metadata, subset, None)
        vectors = self._embed(texts, metadata, subset, "text", prompt)
        self._ranges[metadata.name, "", ""] = ranges_of(vectors)

    def _embed(
        self, texts: list[str], metadata: TaskMetadata, subset: str, side: str, prompt: str
    ) -> np.ndarray:
        what = f"{metadata.name}{'' if subset == 'default' else f' {subset}'} {_PLURAL[side]}"
        encoder = self.corpus_embedder if side == "document" else self.embedder
        embeddings = encoder.encode(
            texts,
            prompt=prompt,
            max_tokens=self.max_tokens,
            pack_tokens=self.pack_tokens,
            progress=_progress(what, self.report) if self.report else None,
        )
        if not np.isfinite(embeddings).all():
            raise ReasoningEmbeddingError(
                "embeddings are not finite", where=what, todo="look for NaN in the weights"
            )
        return self.compression.shorten(embeddings)

    def index(self, corpus: Dataset, **kwargs: Any) -> None:
        """Take the documents to search; they are encoded chunk by chunk as they are searched."""
        self._search.index(corpus, **kwargs)

    def search(self, queries: Dataset, **kwargs: Any) -> dict[str, dict[str, float]]:
        """Return query id -> document id -> cosine for the best documents of each query."""
        return self._search.search(queries, **kwargs)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosine of all pairs (n1, n2): a matrix product, as embeddings have unit norm."""
        if self._waiting in self._ranges:
            embeddings1 = self.compression.scored(np.asarray(embeddings1), self._ranges[self._waiting])
        return torch.as_tensor(embeddings1) @ torch.as_tensor(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosine of row pairs (n,)."""
        return (torch.as_tensor(embeddings1) * torch.as_tensor(embeddings2)).sum(dim=-1)


def _progress(what: str, report: Report) -> Callable[[int, int], None]:
    """Tell how far an encoding is, if it takes long; that it has ended is told by what follows."""
    countdown = Countdown(report, what)
    return lambda done, total: countdown(done, total) if done < total else None
