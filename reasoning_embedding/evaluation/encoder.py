"""Our embedders behind mteb's encoder protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.model_meta import ModelMeta
from mteb.models.search_wrappers import SearchEncoderWrapper
from mteb.types import PromptType

from reasoning_embedding import config
from reasoning_embedding.errors import ReasoningEmbeddingError
from reasoning_embedding.progress import Countdown, Report

from .instructions import Instructions
from .sharding import TextEncoder

ORGANISATION = "reasoning_embedding"
#: The template of the data section: evaluation asks as training did.
QUERY_TEMPLATE: str = config.Data.model_fields["query_template"].default
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


class MtebEncoder:
    """An embedder as mteb's ``EncoderProtocol`` and, for corpora in chunks, its ``SearchProtocol``.

    Parameters
    ----------
    embedder : TextEncoder
        The model.
    meta : ModelMeta
        Its name and revision, see :func:`model_meta`.
    instructions : Instructions, optional
        What texts are asked with; absent: each task's own.
    prompts : mapping, optional
        The model's own prompts by name (``query``, ``document``), which then stand in the place of instructions;
        empty: texts get no prompt at all, as lexical models are asked.
    corpus_embedder : TextEncoder, optional
        Encodes documents in the place of `embedder`: the same model behind a cache.
    max_tokens : int
        Truncation length of a text.
    pack_tokens : int, optional
        Tokens of one forward; absent: what suits the device.
    chunk_documents : int
        Documents of a corpus encoded and searched at a time; of the others only each query's best are kept.
    query_template : str
        Holds ``{instruction}``; it is put before texts that have one, except documents.
    report : callable, optional
        Takes a line of progress.
    """

    def __init__(
        self,
        embedder: TextEncoder,
        meta: ModelMeta,
        *,
        instructions: Instructions | None = None,
        prompts: Mapping[str, str] | None = None,
        corpus_embedder: TextEncoder | None = None,
        max_tokens: int = 512,
        pack_tokens: int | None = None,
        chunk_documents: int = 50_000,
        query_template: str = QUERY_TEMPLATE,
        report: Report | None = None,
    ) -> None:
        self.embedder = embedder
        self.corpus_embedder = corpus_embedder or embedder
        self._meta = meta
        self.instructions = instructions or Instructions()
        self.prompts = prompts
        self.max_tokens, self.pack_tokens = max_tokens, pack_tokens
        self.query_template = query_template
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
        if self.prompts is not None:
            return "" if prompt_type is None else self.prompts.get(PromptType(prompt_type).value, "")
        return self.instructions.prompt(metadata, subset, prompt_type, self.query_template)

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
        subset = "" if hf_subset == "default" else f" {hf_subset}"
        what = f"{task_metadata.name}{subset} {_PLURAL[side]}"
        prompt = self.prompt(task_metadata, hf_subset, prompt_type)
        self.sent.setdefault(task_metadata.name, {}).setdefault(hf_subset, {})[side] = prompt
        encoder = self.corpus_embedder if prompt_type == PromptType.document else self.embedder
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
        return embeddings

    def index(self, corpus: Dataset, **kwargs: Any) -> None:
        """Take the documents to search; they are encoded chunk by chunk as they are searched."""
        self._search.index(corpus, **kwargs)

    def search(self, queries: Dataset, **kwargs: Any) -> dict[str, dict[str, float]]:
        """Return query id -> document id -> cosine for the best documents of each query."""
        return self._search.search(queries, **kwargs)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosine of all pairs (n1, n2): a matrix product, as embeddings have unit norm."""
        return torch.as_tensor(embeddings1) @ torch.as_tensor(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosine of row pairs (n,)."""
        return (torch.as_tensor(embeddings1) * torch.as_tensor(embeddings2)).sum(dim=-1)


def _progress(what: str, report: Report) -> Callable[[int, int], None]:
    """Tell how far an encoding is, if it takes long; that it has ended is told by what follows."""
    countdown = Countdown(report, what)
    return lambda done, total: countdown(done, total) if done < total else None
