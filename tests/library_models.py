"""Tiny random embedders of any readout, made and saved by sentence-transformers itself: the oracle of every readout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.factories import build_tiny_tokenizer

#: Prompts of the models, by name.
PROMPTS = {"query": "Instruct: find the answer Query: ", "document": "on "}
#: Texts of one token and of many; the last is longer than a limit of 96 tokens.
TEXTS = ("cat", "red cat dog sees the old house", "who is the king of the city ?", "river moon star " * 40)
#: Words of sentence-transformers for each mode of pooling.
MODES = {"mean": "mean", "last": "lasttoken", "weighted_mean": "weightedmean", "first": "cls"}


def write_library_model(
    folder: Path,
    model_type: str = "qwen3",
    *,
    pooling: str = "mean",
    include_prompt: bool = True,
    bidirectional: bool = False,
    end_token: bool = False,
    heads: Sequence[tuple[int, str]] = (),
    normalize: bool = True,
    padding_side: str = "right",
    max_seq_length: int | None = None,
    default_prompt_name: str | None = None,
    prompts: dict[str, str] | None = None,
    **changes: Any,
) -> Path:
    """Save Transformer + Pooling (+ Dense with out_features, activation) + Normalize by the library; return the folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from tokenizers.processors import TemplateProcessing
    from transformers import CONFIG_MAPPING, AutoModel

    from tests.models import SIZES

    tokenizer = build_tiny_tokenizer()
    tokenizer.padding_side = padding_side
    if end_token:
        end = ("<eos>", tokenizer.eos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing("$A:0 <eos>:0", special_tokens=[end])
    tokens = {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": tokenizer.eos_token_id}
    settings = CONFIG_MAPPING[model_type](
        **{**SIZES, "max_position_embeddings": 512, **tokens, "bos_token_id": None, **changes}
    )
    if bidirectional:
        settings.is_causal = False
    plain = folder.with_name(f"{folder.name}-decoder")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(settings).save_pretrained(plain)
        tokenizer.save_pretrained(plain)
        width, dense = int(settings.hidden_size), []
        for out_features, activation in heads:
            dense.append(Dense(width, out_features, activation_function=getattr(torch.nn, activation)()))
            width = out_features
    limit = {} if max_seq_length is None else {"max_seq_length": max_seq_length}
    transformer = Transformer(str(plain), **limit)
    pool = Pooling(settings.hidden_size, pooling_mode=MODES[pooling], include_prompt=include_prompt)
    model = SentenceTransformer(
        modules=[transformer, pool, *dense, *([Normalize()] if normalize else [])],
        prompts=PROMPTS if prompts is None else prompts,
        default_prompt_name=default_prompt_name,
        device="cpu",
    )
    model.save(str(folder), create_model_card=False)
    return folder
