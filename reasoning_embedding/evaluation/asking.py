"""What stands before each text: what the user says, else the model's own prompt, else the task's instruction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mteb.abstasks.task_metadata import TaskMetadata
from mteb.types import PromptType

from reasoning_embedding import config

from .instructions import Instructions, is_asymmetric

#: The template of the data section: evaluation asks as training did.
QUERY_TEMPLATE: str = config.Data.model_fields["query_template"].default


@dataclass(frozen=True)
class ModelPrompts:
    """Prompts of a model by name.

    Parameters
    ----------
    prompts : mapping
        ``query``, ``document``, a task or a type of tasks, and those with ``-query`` or ``-document`` behind, to what
        stands before a text.
    default : str, optional
        What stands before a text that none of the names is for.
    made_here : bool
        Whether the names of sources stand among them, as in a checkpoint of ours: they are prompts of queries only.
    source : str
        Who says so, for the record.
    """

    prompts: Mapping[str, str]
    default: str | None = None
    made_here: bool = False
    source: str = "the model's own"

    @property
    def falls_back(self) -> bool:
        """Whether a text without a prompt gets its task's instruction: where the model was trained with several.

        Of a checkpoint of ours an empty prompt says no more than a missing one: all have one for ``query``.
        """
        return self.made_here and not self.prompts.get("query") and any(self.prompts.values())

    def find(self, metadata: TaskMetadata, side: PromptType | None) -> str | None:
        """Return the prompt of a text of this task, or None; names count in mteb's order."""
        own = side.value if side is not None else None
        names = [] if own is None else [f"{metadata.name}-{own}", f"{metadata.type}-{own}"]
        if not (self.made_here and side == PromptType.document):
            names = [*names[:1], metadata.name, *names[1:], metadata.type]
        names += [own] if own is not None else []
        known = {k: v for k, v in self.prompts.items() if v or not self.made_here}
        return next((known[name] for name in names if name in known), self.default)


def prompts_known_to_mteb(repo: str) -> ModelPrompts | None:
    """Return the prompts that mteb sends a model of the Hub, or None where it knows none; the network is not asked."""
    from mteb.models.get_model_meta import MODEL_REGISTRY

    meta: Any = MODEL_REGISTRY.get(repo)
    found = (meta.loader_kwargs or {}).get("model_prompts") if meta is not None else None
    return ModelPrompts(dict(found), source="mteb's for this model") if found else None


@dataclass(frozen=True)
class Asking:
    """How a model is asked.

    Parameters
    ----------
    instructions : Instructions
        What the user says, and what tasks bring along.
    own : ModelPrompts, optional
        The model's own prompts. Absent: it has none, and every task brings its instruction.
    template : str
        Holds ``{instruction}``; it is put before texts that have one, except documents.

    Notes
    -----
    The first that is there decides: an instruction of the user; the model's own prompt; for a model that was made
    here and trained with several instructions, the task's own one; nothing.
    """

    instructions: Instructions = field(default_factory=Instructions)
    own: ModelPrompts | None = None
    template: str = QUERY_TEMPLATE

    def prompt(self, metadata: TaskMetadata, subset: str, prompt_type: PromptType | None) -> str:
        """Return what stands before a text of this task; empty: nothing."""
        side = PromptType(prompt_type) if prompt_type else None
        if not self._by_instruction(metadata, subset, side) and self.own is not None:
            return self.own.find(metadata, side) or ""
        return self.instructions.prompt(metadata, subset, side, self.template)

    def instruction(self, metadata: TaskMetadata, subset: str, prompt_type: PromptType | None) -> str:
        """Return the instruction within :meth:`prompt`; empty where a prompt of the model stands in its place."""
        side = PromptType(prompt_type) if prompt_type else None
        by_instruction = self._by_instruction(metadata, subset, side)
        return self.instructions.for_task(metadata, subset, side) if by_instruction else ""

    def identity(self, metadata: TaskMetadata, subset: str) -> tuple[dict[str, str], dict[str, str]]:
        """Return side -> instruction, and side -> prompt of the model, of what is sent; what is empty is left out."""
        sides: dict[str, PromptType | None] = {"text": None}
        if is_asymmetric(metadata):
            sides = {side.value: side for side in PromptType}
        instructions = {name: self.instruction(metadata, subset, side) for name, side in sides.items()}
        prompts = {
            name: self.prompt(metadata, subset, side)
            for name, side in sides.items()
            if not self._by_instruction(metadata, subset, side)
        }
        return {k: v for k, v in instructions.items() if v}, {k: v for k, v in prompts.items() if v}

    def _by_instruction(self, metadata: TaskMetadata, subset: str, side: PromptType | None) -> bool:
        """Whether an instruction decides, be it an empty one."""
        if self.own is None or self.instructions.said(metadata, subset, side) is not None:
            return True
        return self.own.falls_back and self.own.find(metadata, side) is None
