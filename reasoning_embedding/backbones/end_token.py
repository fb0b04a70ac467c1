"""The special token that ends a text, which pooling of the last token reads."""

from __future__ import annotations

import json
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
    from tokenizers import Tokenizer, models

    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or tokenizer.eos_token is None:
        what = "has no eos_token" if backend is not None else "has no post-processor (it is a slow one)"
        raise InputError(
            f"no end token can be appended: the tokenizer {what}",
            where=where,
            todo="set readout.end_token: false, or give the tokenizer one (eos_token in tokenizer_config.json)",
        )
    rule = None if backend.post_processor is None else json.loads(backend.post_processor.__getstate__())
    # Read back through an empty tokenizer, which costs nothing where a vocabulary of 262,144 entries takes a second.
    empty = json.loads(Tokenizer(models.BPE()).to_str())
    empty["post_processor"] = _with_end(rule, str(tokenizer.eos_token), int(tokenizer.eos_token_id))
    backend.post_processor = Tokenizer.from_str(json.dumps(empty)).post_processor
    # Tokenizers whose settings name these flags rebuild the post-processor from them when they are loaded.
    settings = tokenizer.init_kwargs
    if "add_bos_token" in settings or "add_eos_token" in settings:
        settings["add_eos_token"] = True


def _with_end(rule: dict[str, Any] | None, token: str, number: int) -> dict[str, Any]:
    """Return a post-processor's rule, as tokenizers writes it, with an end token after each text.

    It goes into the template that there is: two templates in sequence would take the first one's start token for a
    text, and end that too.
    """
    kind = None if rule is None else rule["type"]
    if rule is not None and kind == "Sequence":
        parts = rule["processors"]
        place = next((n for n, part in enumerate(parts) if part["type"] == "TemplateProcessing"), None)
        if place is None:
            return {**rule, "processors": [*parts, _with_end(None, token, number)]}
        ended = _with_end(parts[place], token, number)
        return {**rule, "processors": [*parts[:place], ended, *parts[place + 1 :]]}
    if rule is not None and kind != "TemplateProcessing":
        return {"type": "Sequence", "processors": [rule, _with_end(None, token, number)]}
    single, both, special = [_text("A", 0)], [_text("A", 0), _text("B", 1)], {}
    if rule is not None:
        single, both, special = rule["single"], rule["pair"], rule["special_tokens"]
    second = next((n for n, part in enumerate(both) if part.get("Sequence", {}).get("id") == "B"), len(both))
    first_ends = max(n for n, part in enumerate(both[:second]) if "Sequence" in part) + 1
    pair = [*both[:first_ends], _end(token, 0), *both[first_ends:], _end(token, 1)]
    known = {**special, token: {"id": token, "ids": [number], "tokens": [token]}}
    return {
        "type": "TemplateProcessing",
        "single": [*single, _end(token, 0)],
        "pair": pair,
        "special_tokens": known,
    }


def _text(name: str, kind: int) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": kind}}


def _end(token: str, kind: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": kind}}
