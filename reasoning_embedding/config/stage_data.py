"""What the stages of a lineage learn from: the miniature world's sums, or rows of files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Positive, Section


class WorldSums(Section):
    """Sums of the miniature world; wrong answers, where needed, are other sums there are."""

    kind: Literal["world"] = "world"


class PromptFiles(Section):
    """Rows of JSONL files (.gz too) or parquet; ``{field}`` in a text stands for that field of the row."""

    kind: Literal["files"]
    paths: Annotated[list[str], Field(min_length=1)]
    prompt: str = "{prompt}"
    """The prompt, such as ``"Question: {question}\\nAnswer:"``."""
    chat: bool = False
    """Let the tokenizer's chat template write prompt and answer as turns; false: plain text."""
    system: str | None = None
    """First turn of a chat; absent: none."""
    limit: Positive | None = None
    """Read at most this many rows."""


class CompletionFiles(PromptFiles):
    """Prompts and what should follow, or whole conversations."""

    completion: str = "{completion}"
    messages: str | None = None
    """Field of a conversation ``[{role, content}, ...]``, which takes the place of prompt and completion: the
    last turn is learnt. It needs ``chat``."""


class PreferenceFiles(PromptFiles):
    """Prompts, each with a better and a worse answer."""

    chosen: str = "{chosen}"
    rejected: str = "{rejected}"


class ProblemFiles(PromptFiles):
    """Prompts, each with the right answer that a reward holds completions against."""

    answer: str = "{answer}"


Completions = Annotated[WorldSums | CompletionFiles, Field(discriminator="kind")]
Preferences = Annotated[WorldSums | PreferenceFiles, Field(discriminator="kind")]
Problems = Annotated[WorldSums | ProblemFiles, Field(discriminator="kind")]
