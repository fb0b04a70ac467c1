"""The special token that ends a text, which pooling of the last token reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reasoning_embedding.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def ends_texts(tokenizer: PreTrainedTokenizerBase | None) -> bool:
    """Whether a tokenizer ends each text with a special token of its own."""
    if tokenizer is None:
        return False
    whole = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    return len(whole) > len(bare) and whole[-1] in tokenizer.all_special_ids


def add_end_token(tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Let a tokenizer end each text with its ``eos_token``, in place; a cut text keeps it.

    The rule goes into the tokenizer's post-processor, as Qwen3-Embedding's does, so that it is saved with it
    (``tokenizer.json``) and sentence-transformers and every other user of the folder append the same token.

    Raises
    ------
    InputError
        If the tokenizer has no end token, or is not one of the fast kind.
    """
    from tokenizers import processors

    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or tokenizer.eos_token is None:
        what = "has no eos_token" if backend is not None else "has no post-processor (it is a slow one)"
        raise InputError(
            f"no end token can be appended: the tokenizer {what}",
            where=where,
            todo="set readout.end_token: false, or give the tokenizer one (eos_token in tokenizer_config.json)",
        )
    end = (str(tokenizer.eos_token), int(tokenizer.eos_token_id))
    append = processors.TemplateProcessing(
        single=f"$A:0 {end[0]}:0", pair=f"$A:0 {end[0]}:0 $B:1 {end[0]}:1", special_tokens=[end]
    )
    before = backend.post_processor
    backend.post_processor = append if before is None else processors.Sequence([before, append])
    # Tokenizers whose settings name these flags rebuild the post-processor from them when they are loaded.
    settings = tokenizer.init_kwargs
    if "add_bos_token" in settings or "add_eos_token" in settings:
        settings["add_eos_token"] = True
