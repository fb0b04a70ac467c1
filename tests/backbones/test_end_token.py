"""An end token is appended once to each text, kept when a text is cut, and saved with the tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors

from reasoning_embedding.backbones import add_end_token, ends_texts, load_tokenizer
from reasoning_embedding.errors import InputError
from tests.factories import build_tiny_tokenizer

BOS = processors.TemplateProcessing(
    single="<pad>:0 $A:0", pair="<pad>:0 $A:0 <pad>:1 $B:1", special_tokens=[("<pad>", 0)]
)
BYTES = processors.ByteLevel(trim_offsets=False)
#: What a tokenizer did before, and the ids before the text.
BEFORE: dict[str, tuple[Any, list[int]]] = {
    "nothing": (None, []),
    "bytes (Qwen, SmolLM2)": (BYTES, []),
    "a start token (Gemma, Llama 2)": (BOS, [0]),
    "bytes and a start token (Llama 3)": (processors.Sequence([BYTES, BOS]), [0]),
}


@pytest.mark.parametrize("what", BEFORE)
def test_a_text_ends_with_one_token_whatever_stood_before(tmp_path: Path, what: str) -> None:
    before, start = BEFORE[what]
    tokenizer = build_tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = before or processors.Sequence([])
    if before is None:
        tokenizer.backend_tokenizer.post_processor = None
    bare, end = tokenizer("red cat", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id
    assert not ends_texts(tokenizer)
    assert tokenizer("red cat")["input_ids"] == [*start, *bare]
    add_end_token(tokenizer, "here")
    assert ends_texts(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    for one in (tokenizer, load_tokenizer(str(tmp_path))):
        assert one("red cat")["input_ids"] == [*start, *bare, end]
        assert one("red cat " * 9, truncation=True, max_length=5)["input_ids"][-1] == end
        assert one("red", "cat")["input_ids"] == [*start, bare[0], end, *start, bare[1], end]
        assert one.num_special_tokens_to_add() == len(start) + 1


def test_flags_that_rebuild_the_rule_know_of_it(tmp_path: Path) -> None:
    """LlamaTokenizer and others are loaded with add_bos_token, and make their post-processor of it."""
    tokenizer = build_tiny_tokenizer()
    tokenizer.init_kwargs["add_bos_token"] = False
    add_end_token(tokenizer, "here")
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path))("red")["input_ids"] == tokenizer("red")["input_ids"]


def test_a_tokenizer_without_an_end_token_is_refused() -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="has no eos_token"):
        add_end_token(tokenizer, "readout.end_token")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "start"), [("gemma-3-270m", [2]), ("smollm2-135m-instruct", [])])
def test_real_tokenizers_append_it(tmp_path: Path, real_models: Path, name: str, start: list[int]) -> None:
    tokenizer = load_tokenizer(str(real_models / name))
    bare = tokenizer("hello world", add_special_tokens=False)["input_ids"]
    add_end_token(tokenizer, "here")
    tokenizer.save_pretrained(tmp_path)
    for one in (tokenizer, load_tokenizer(str(tmp_path))):
        assert one("hello world")["input_ids"] == [*start, *bare, tokenizer.eos_token_id]
