"""Our embedders behind mteb's encoder protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.model_meta import ModelMeta
from mteb.types import PromptType

from reasoning_embedding import config
from reasoning_embedding.errors import ReasoningEmbeddingError

ORGANISATION = "reasoning_embedding"
#: The template of the data section: evaluation asks as training did.
QUERY_TEMPLATE: str = config.Data.model_fields["query_template"].default
#: Seconds between two lines of progress.
PROGRESS_INTERVAL = 10.0


class TextEncoder(Protocol):
    """What can be scored: texts in, unit vectors out."""

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        ...

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        max_tokens: int = 512,
        pack_tokens: int = 16384,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Return float32 embeddings (len(texts), dimension) of unit norm."""
        ...


def model_meta(model_name: str, revision: str, **known: Any) -> ModelMeta:
    """Return metadata under which no two models can meet in mteb's cache.

    mteb files results under name and revision and gives local models one name and one revision for all.

    Parameters
    ----------
    model_name : str
        The run or baseline; it is put under the organisation ``reasoning_embedding``.
    revision : str
        :func:`reasoning_embedding.evaluation.scores.revision_of` for checkpoints.
    **known
        Further fields of :class:`mteb.models.model_meta.ModelMeta`.
    """
    fields = {"name": f"{ORGANISATION}/{model_name}", "revision": revision, "open_weights": True, **known}
    return ModelMeta.create_empty(fields)


class MtebEncoder:
    """An embedder as mteb's ``EncoderProtocol``.

    Queries get ``query_template`` filled with the instruction of the task's metadata, and nothing where it
    has none; documents never get a prompt.

    Parameters
    ----------
    embedder : TextEncoder
        The model.
    meta : ModelMeta
        Its name and revision, see :func:`model_meta`.
    max_tokens, pack_tokens : int
        Truncation length of a text and tokens of one forward.
    query_template : str
        Holds ``{instruction}``.
    report : callable, optional
        Takes a line of progress.
    """

    def __init__(
        self,
        embedder: TextEncoder,
        meta: ModelMeta,
        *,
        max_tokens: int = 512,
        pack_tokens: int = 16384,
        query_template: str = QUERY_TEMPLATE,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.embedder = embedder
        self._meta = meta
        self.max_tokens, self.pack_tokens = max_tokens, pack_tokens
        self.query_template = query_template
        self.report = report

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Name and revision that results are filed under."""
        return self._meta

    def prompt(self, metadata: TaskMetadata, prompt_type: PromptType | None) -> str:
        """Return what stands before a text of this task: the filled template for queries, else nothing."""
        instructions = metadata.prompt
        if prompt_type != PromptType.query or not instructions:
            return ""
        instruction = instructions if isinstance(instructions, str) else instructions.get("query", "")
        return self.query_template.replace("{instruction}", instruction) if instruction else ""

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
        what = f"{task_metadata.name} {'queries' if prompt_type == PromptType.query else 'documents'}"
        embeddings = self.embedder.encode(
            texts,
            prompt=self.prompt(task_metadata, prompt_type),
            max_tokens=self.max_tokens,
            pack_tokens=self.pack_tokens,
            progress=progress_lines(what, self.report) if self.report else None,
        )
        if not np.isfinite(embeddings).all():
            raise ReasoningEmbeddingError(
                "embeddings are not finite", where=what, todo="look for NaN in the weights"
            )
        return embeddings

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosine of all pairs (n1, n2): a matrix product, as embeddings have unit norm."""
        return torch.as_tensor(embeddings1) @ torch.as_tensor(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosine of row pairs (n,)."""
        return (torch.as_tensor(embeddings1) * torch.as_tensor(embeddings2)).sum(dim=-1)


def progress_lines(
    what: str, report: Callable[[str], None], *, interval: float = PROGRESS_INTERVAL
) -> Callable[[int, int], None]:
    """Return a callback (done, total) that reports a line with the time left, at most one an `interval`."""
    start = last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < interval or not done:
            return
        last = now
        report(f"{what}: {done}/{total}, {(now - start) * (total - done) / done:.0f} s left")

    return progress
