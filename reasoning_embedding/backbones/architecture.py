"""A stock Hugging Face decoder configuration from a handful of numbers."""

from __future__ import annotations

import copy
from typing import Any

from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from reasoning_embedding.config.backbone import Architecture
from reasoning_embedding.config.reading.suggestions import closest
from reasoning_embedding.errors import InputError


def _advice(word: str, known: list[str]) -> str:
    close = closest(word, known)
    return f"did you mean {close!r}?" if close else "see the architecture's page in the transformers docs"


def _rope(defaults: PreTrainedConfig, theta: float) -> dict[str, Any]:
    """Put `theta` into the architecture's own RoPE fields (transformers 5 keeps them in one dict).

    Architectures with local and global layers hold a dict a layer type; `theta` goes to each.
    """
    rope: dict[str, Any] = copy.deepcopy(getattr(defaults, "rope_parameters", None)) or {
        "rope_type": "default"
    }
    nested = [part for part in rope.values() if isinstance(part, dict)]
    for part in nested or [rope]:
        part["rope_theta"] = theta
    return rope


def build_config(
    architecture: Architecture, vocab_size: int, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedConfig:
    """Return the configuration of a decoder with random weights.

    Parameters
    ----------
    architecture : Architecture
        Shape of the decoder.
    vocab_size : int
        Rows of the embedding; at least the tokenizer's length.
    tokenizer : PreTrainedTokenizerBase
        Gives the ids of the special tokens.

    Raises
    ------
    InputError
        If transformers does not know the architecture or one of its ``extra`` fields, if the heads do
        not divide the hidden size, or if the tokenizer has more tokens than `vocab_size`.
    """
    kind = architecture.model_type
    if kind not in CONFIG_MAPPING:
        raise InputError(
            f"transformers has no architecture {kind!r}",
            where="architecture.model_type",
            todo=_advice(kind, list(CONFIG_MAPPING)),
        )
    if len(tokenizer) > vocab_size:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens, the vocabulary {vocab_size}",
            todo="give the model at least as many rows as the tokenizer has tokens",
        )
    heads, hidden = architecture.num_attention_heads, architecture.hidden_size
    if architecture.head_dim is None and hidden % heads:
        raise InputError(
            f"hidden_size {hidden} is no multiple of num_attention_heads {heads}",
            where="architecture",
            todo="change one of them or give head_dim",
        )
    key_value_heads = architecture.num_key_value_heads or heads
    if heads % key_value_heads:
        raise InputError(
            f"num_attention_heads {heads} is no multiple of num_key_value_heads {key_value_heads}",
            where="architecture",
            todo="query heads share key-value heads evenly",
        )
    defaults = AutoConfig.for_model(kind)
    known = list(defaults.to_dict())
    for field in architecture.extra:
        if field not in known:
            raise InputError(
                f"{kind} has no field {field!r}",
                where="architecture.extra",
                todo=_advice(field, known),
            )
    fields = {
        "hidden_size": hidden,
        "num_hidden_layers": architecture.num_hidden_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "head_dim": architecture.head_dim or hidden // heads,
        "intermediate_size": architecture.intermediate_size,
        "max_position_embeddings": architecture.max_position_embeddings,
        "rope_parameters": _rope(defaults, architecture.rope_theta),
    }
    # Fields an architecture lacks (gpt_neox has no key-value heads) would be kept in config.json unread.
    settable = {*known, "head_dim"}
    if hasattr(defaults, "num_key_value_heads"):
        settable.add("num_key_value_heads")
    elif key_value_heads != heads:
        raise InputError(
            f"{kind} has one key-value head for each query head",
            where="architecture.num_key_value_heads",
            todo="leave it out",
        )
    return AutoConfig.for_model(
        kind,
        vocab_size=vocab_size,
        tie_word_embeddings=architecture.tie_word_embeddings,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **{name: value for name, value in fields.items() if name in settable},
        **architecture.extra,
    )
