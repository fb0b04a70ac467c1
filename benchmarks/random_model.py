"""A checkpoint of random weights over a tokenizer of given texts: speed does not depend on what they are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder
from reasoning_embedding.backbones.architecture import build_config
from reasoning_embedding.backbones.attention import register
from reasoning_embedding.checkpoints.embedder import save_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def byte_pair_tokenizer(texts: Iterable[str], vocabulary: int = 8000) -> PreTrainedTokenizerBase:
    """Learn a byte-level BPE tokenizer with one special token, ``<eos>``, which also pads.

    Parameters
    ----------
    texts : iterable of str
        What the merges are learnt from.
    vocabulary : int
        Most entries, at least 257.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>", pad_token="<eos>")


def save_random_model(
    folder: Path,
    architecture: config.Architecture,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int = 512,
    vocabulary: int | None = None,
) -> None:
    """Write a bidirectional embedder of seed 0 as a SentenceTransformer folder.

    Parameters
    ----------
    folder : Path
        Where; an existing folder is replaced.
    architecture : config.Architecture
        Its shape.
    tokenizer : PreTrainedTokenizerBase
        Written beside the weights.
    max_tokens : int
        Length at which whoever loads it cuts texts.
    vocabulary : int, optional
        Rows of the token embedding; absent: one for each token.
    """
    from transformers import AutoModel

    settings = build_config(architecture, vocabulary or len(tokenizer), tokenizer)
    settings.is_causal = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(settings)
    model.set_attn_implementation(register())
    save_checkpoint(folder, Embedder(model, tokenizer), max_tokens=max_tokens, parent=None)
