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
    num_hidden_layers: Positive = 4
    num_attention_heads: Positive = 4
    num_key_value_heads: Positive | None = None
    head_dim: Positive | None = None
    intermediate_size: Positive = 768
    max_position_embeddings: Positive = 1024
    rope_theta: PositiveFloat = 10000.0
    tie_word_embeddings: bool = True
    extra: dict[str, bool | int | float | str] = Field(default={})
    """Further fields of the architecture's own config, as they are."""


class PretrainedBackbone(Section):
    """A decoder checkpoint or a decoder's embedder: a local folder or a Hub id with a pinned revision."""

    kind: Literal["pretrained"] = "pretrained"
    path: Text
    revision: str | None = None


class RandomBackbone(Section):
    """A decoder with random weights and a tokenizer taken from a folder or Hub id."""

    kind: Literal["random"]
    architecture: Architecture = Architecture()
    tokenizer: Text
    seed: int = 0


Backbone = Annotated[PretrainedBackbone | RandomBackbone, Field(discriminator="kind")]


class Lora(Section):
    """Low-rank adaptation of the backbone's linear layers (peft); heads of the readout are trained whole beside it."""

    rank: Positive = 16
    alpha: PositiveFloat = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
