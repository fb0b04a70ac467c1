"""How token states become one vector: attention, pooling, end token, heads, prompts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .base import Positive, Section, conflict


class NewHead(Section):
    """A linear map after pooling with random weights, trained with the rest and saved as a Dense module."""

    out_features: Positive
    """Length of the vector it gives."""
    bias: bool = True
    """Whether it adds a vector."""
    activation: Literal["identity", "tanh", "relu", "gelu", "silu"] = "identity"
    """What its output passes through."""


class SidePrompts(Section):
    """What is put before the texts of one source."""

    query: str | None = None
    """What stands before a query."""
    document: str | None = None
    """What stands before a document."""


class Prompts(Section):
    """What is put before texts, in training and by whoever loads the checkpoint."""

    query: str | None = None
    """Before a query whose row has no instruction (an instruction goes through ``data.query_template``)."""
    document: str | None = None
    """Before a document."""
    sources: dict[str, SidePrompts] = Field(default={})
    """Before the texts of a source, in the place of all others and of the instructions of its rows."""
    named: dict[str, str] = Field(default={})
    """Further prompts that are saved with the checkpoint under their names; training does not use them."""

    @property
    def of_documents(self) -> frozenset[str]:
        """All that is put before a document; the empty text where nothing is."""
        sources = [side.document for side in self.sources.values() if side.document is not None]
        return frozenset([self.document or "", *sources])

    @property
    def texts(self) -> list[str]:
        """All that training puts before a text, in the order of the keys."""
        sides = [self, *self.sources.values()]
        return [text for side in sides for text in (side.query, side.document) if text is not None]


class ReadoutSettings(Section):
    """How token states become one vector. A key left out is what the backbone has, where that is an embedder, else
    the default: bidirectional attention, the mean without the prompt, no heads, no prompts."""

    attention: Literal["bidirectional", "causal"] | None = None
    """Whether a token sees the whole text or only what stands before it; absent: the backbone's own where it
    is an embedder, else bidirectional."""
    pooling: Literal["mean", "last", "weighted_mean", "first"] | None = None
    """``weighted_mean`` weighs a token by its place in the text."""
    include_prompt: bool | None = None
    """Whether the prompt's tokens are pooled; they are attended to either way. Without them ``first`` is the first
    token after the prompt."""
    end_token: bool | None = None
    """Whether each text ends with the tokenizer's ``eos_token``. Left out: yes for ``last`` of a language model, else as
    the tokenizer does it."""
    heads: list[NewHead] | None = None
    """New heads, in the place of those of the backbone; an empty list drops them."""
    prompts: Prompts | None = None
    """In the place of the backbone's ``query`` and ``document`` prompts; its others are kept by name."""

    @model_validator(mode="after")
    def _tells_texts_apart(self) -> ReadoutSettings:
        if self.pooling == "first" and self.attention == "causal":
            raise conflict(
                "the first token under causal attention sees none of the text after it; choose last, mean or "
                "weighted_mean",
                "pooling",
            )
        return self


class Pooling(Section):
    """Two keys of ``readout`` in the form that they had before there was one."""

    kind: Literal["mean"] | None = None
    include_prompt: bool | None = None
    """Whether the prompt's tokens are part of the mean."""

    def as_readout(self) -> ReadoutSettings:
        """Return the readout that it says."""
        return ReadoutSettings(pooling=self.kind, include_prompt=self.include_prompt)
