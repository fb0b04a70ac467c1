"""Tiny Qwen3 checkpoints over the miniature world's words, for the tests of hrsa."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from reasoning_embedding.data.miniature_world import MiniatureWorld


def words(reverse: bool = False) -> PreTrainedTokenizerFast:
    """Word-level tokenizer; reversed, the same words have other ids."""
    vocabulary = MiniatureWorld(0).vocabulary
    order = vocabulary[:3] + (vocabulary[:2:-1] if reverse else vocabulary[3:])
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(order)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


def qwen3(seed: int = 0, *, hidden: int = 64, layers: int = 3, causal: bool = True) -> Qwen3ForCausalLM:
    """Random Qwen3 whose norm gains differ from one another, as trained ones do."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=126,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=2 * hidden,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        initializer_range=0.15,
    )
    config.is_causal = causal
    model = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
    return model


def save(model: Qwen3ForCausalLM, folder: Path, *, reverse: bool = False) -> Path:
    """Write model and tokenizer as a normal checkpoint."""
    model.save_pretrained(folder)
    words(reverse).save_pretrained(folder)
    return folder
