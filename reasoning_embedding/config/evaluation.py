"""What a checkpoint is scored on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Name, Positive, Section


class BeirTask(Section):
    """Retrieval on a local BEIR-style folder: corpus, queries (JSONL, .gz too) and qrels.tsv."""

    kind: Literal["beir"]
    path: Annotated[str, Field(min_length=1)]
    name: Name | None = None
    """Absent: the folder's name."""
    instruction: str | None = None
    """Absent: the ``instruction`` of the folder's meta.json, if there is one."""


class WorldTask(Section):
    """Retrieval of the miniature world's documents by its held-out questions."""

    kind: Literal["world"]
    name: Name = "world-heldout"
    seed: int = 0


Task = Annotated[BeirTask | WorldTask, Field(discriminator="kind")]


class Evaluation(Section):
    """Tasks and how texts are encoded for them."""

    tasks: Annotated[list[Task], Field(min_length=1)]
    steps: Literal["ends", "all"] | list[int] = "ends"
    """Which checkpoints of a run: step 0 and the last, all, or a list."""
    baselines: list[Literal["bm25", "untrained"]] = Field(default=[])
    """``untrained``: the same architecture with random weights, as an embedder."""
    max_tokens: Positive = 512
    pack_tokens: Positive = 16384
    threads: Positive | None = None
