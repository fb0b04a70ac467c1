"""The tokenizer of a lineage: the world's words, a byte-level BPE trained on the corpus, or a given one."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from reasoning_embedding.config.lineage import BpeTokenizer, ExistingTokenizer, WorldTokenizer
from reasoning_embedding.data.miniature_world import EOS, PAD, UNKNOWN, MiniatureWorld
from reasoning_embedding.errors import InputError


def build_tokenizer(
    section: WorldTokenizer | BpeTokenizer | ExistingTokenizer, texts: Callable[[], Iterator[str]]
) -> PreTrainedTokenizerBase:
    """Return the tokenizer a section describes, with a pad and an end token and no chat template.

    Parameters
    ----------
    section : WorldTokenizer, BpeTokenizer or ExistingTokenizer
        The ``tokenizer`` of a lineage.
    texts : callable
        Gives the corpus; called only to train a BPE tokenizer.

    Raises
    ------
    InputError
        If the folder of an existing tokenizer cannot be read or names no end token.
    """
    if isinstance(section, WorldTokenizer):
        return world_tokenizer()
    if isinstance(section, BpeTokenizer):
        return train_bpe(texts(), section.vocab_size)
    return existing_tokenizer(section.path)


def world_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer of the miniature world: one token a word, a digit or a sign."""
    vocabulary = {token: i for i, token in enumerate(MiniatureWorld().vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    # Words, single digits and single signs; white space separates and is dropped.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"[^\p{L}]"), behavior="isolated"),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN
    )


def train_bpe(texts: Iterator[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE (GPT-2's splitting); equal texts give an equal tokenizer.

    Raises
    ------
    InputError
        If `vocab_size` has no room for the 256 bytes and the special tokens.
    """
    if vocab_size < 256 + 2:
        raise InputError(
            f"a byte-level vocabulary of {vocab_size} cannot hold the 256 bytes and 2 special tokens",
            where="tokenizer.vocab_size",
            todo="ask for 258 or more; 8192 suits a small model",
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS)


def existing_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer folder or Hub id; a folder may also hold GPT-2's two files, gzipped or not.

    A missing pad token becomes the end token; a chat template is dropped.

    Raises
    ------
    InputError
        If nothing there can be read as a tokenizer, or it has no end token.
    """
    folder = Path(path)
    tokenizer: PreTrainedTokenizerBase
    vocabulary = sorted(folder.glob("*vocab.json*")) if folder.is_dir() else []
    merges = sorted(folder.glob("*merges.txt*")) if folder.is_dir() else []
    if vocabulary and merges and not (folder / "tokenizer_config.json").exists():
        tokenizer = _gpt2(vocabulary[0], merges[0])
    else:
        try:
            tokenizer = load_tokenizer(path)
        except (OSError, ValueError) as error:
            raise InputError(
                f"no tokenizer here: {str(error).splitlines()[0]}",
                where=path,
                todo="name a folder with tokenizer.json, or a Hub id that is reachable",
            ) from error
    if tokenizer.eos_token is None:
        raise InputError(
            "the tokenizer has no end token",
            where=path,
            todo="set eos_token in its tokenizer_config.json; texts of the corpus are separated by it",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = None
    return tokenizer


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or Hub id, as transformers does."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def _gpt2(vocabulary: Path, merges: Path) -> PreTrainedTokenizerFast:
    tokens: dict[str, int] = json.loads(_read(vocabulary))
    lines = [line.split() for line in _read(merges).splitlines() if line and not line.startswith("#")]
    pairs = [(left, right) for left, right in lines]
    tokenizer = Tokenizer(models.BPE(vocab=tokens, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    eos = next((token for token in ("<|endoftext|>", "</s>") if token in tokens), None)
    pad = PAD if PAD in tokens else None
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, pad_token=pad)


def _read(path: Path) -> str:
    raw = path.read_bytes()
    return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
