"""Which decoder a run starts from, and adapters on it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Positive, PositiveFloat, Section, Text


class Architecture(Section):
    """A stock Hugging Face decoder built from numbers, with random weights."""

    model_type: str = "qwen3"
    """``model_type`` of transformers: qwen3, qwen2, llama, mistral, gemma3_text, olmo2, gpt_neox, ..."""
    hidden_size: Positive = 256
    """Width of the residual stream, and so of an embedding."""
    num_hidden_layers: Positive = 4
    """Decoder layers."""
    num_attention_heads: Positive = 4
    """Heads of queries."""
    num_key_value_heads: Positive | None = None
    """Heads of keys and values; absent: as many as of queries."""
    head_dim: Positive | None = None
    """Width of a head; absent: ``hidden_size`` over the heads."""
    intermediate_size: Positive = 768
    """Width inside a feed-forward layer."""
    max_position_embeddings: Positive = 1024
    """Longest text the positions are made for."""
    rope_theta: PositiveFloat = 10000.0
    """Base of the rotary positions' wavelengths."""
    tie_word_embeddings: bool = True
    """Whether the language model's head is its token embedding."""
    extra: dict[str, bool | int | float | str] = Field(default={})
    """Further fields of the architecture's own config, as they are."""


class PretrainedBackbone(Section):
    """A decoder checkpoint or a decoder's embedder: a local folder or a Hub id with a pinned revision."""

    kind: Literal["pretrained"] = "pretrained"
    path: Text
    """A folder or a Hub id; in an experiment ``lineage:STAGE``."""
    revision: str | None = None
    """Branch, tag or, best, commit of the Hub repository."""


class RandomBackbone(Section):
    """A decoder with random weights and a tokenizer taken from a folder or Hub id."""

    kind: Literal["random"]
    architecture: Architecture = Architecture()
    """Its shape."""
    tokenizer: Text
    """Folder of the tokenizer."""
    seed: int = 0
    """Of the weights."""


Backbone = Annotated[PretrainedBackbone | RandomBackbone, Field(discriminator="kind")]


class Lora(Section):
    """Low-rank adaptation of the backbone's linear layers (peft); heads of the readout are trained whole beside it."""

    rank: Positive = 16
    """Width of the two factors of each weight's change."""
    alpha: PositiveFloat = 32.0
    """The change is multiplied by ``alpha`` over ``rank``."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of a layer's inputs that the adapter does not see in a step."""
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    """Layers that get an adapter: all linear ones of the body, or names."""
