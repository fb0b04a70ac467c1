"""Tokenizers of a lineage."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from reasoning_embedding.data.miniature_world import SUMS, MiniatureWorld
from reasoning_embedding.errors import InputError
from reasoning_embedding.lineages.tokenizer import (
    existing_tokenizer,
    load_tokenizer,
    train_bpe,
    world_tokenizer,
)

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "naïve café 北京\n"] * 20


def test_world_tokenizer_knows_every_text_and_gives_sums_one_width(tmp_path: Path) -> None:
    tokenizer = world_tokenizer()
    assert len(tokenizer) == 126
    ids = tokenizer(MiniatureWorld().documents() + [q for q, _, _ in MiniatureWorld().pairs("train")])[
        "input_ids"
    ]
    assert not any(tokenizer.unk_token_id in row for row in ids)
    assert {len(tokenizer(s.prompt)["input_ids"]) for s in SUMS} == {5}
    assert {len(tokenizer(s.answer)["input_ids"]) for s in SUMS} == {4}
    tokenizer.save_pretrained(tmp_path)
    reloaded = load_tokenizer(tmp_path)
    assert reloaded("07+5=012 .")["input_ids"] == tokenizer("07+5=012 .")["input_ids"]
    assert (reloaded.pad_token_id, reloaded.eos_token_id, reloaded.chat_template) == (0, 1, None)


def test_world_text_survives_decoding_but_for_white_space() -> None:
    tokenizer = world_tokenizer()
    text = tokenizer.decode(tokenizer("07+5=12,01;012 .")["input_ids"])
    assert "".join(text) == "0 7 + 5 = 1 2 , 0 1 ; 0 1 2 ."
    assert tokenizer("anna flies")["input_ids"][1] == tokenizer.unk_token_id


def test_bpe_is_lossless_and_the_same_every_time() -> None:
    first, second = train_bpe(iter(TEXTS), 280), train_bpe(iter(TEXTS), 280)
    assert first.get_vocab() == second.get_vocab()
    assert len(first) == 280
    unseen = "Größe: 42 – ok?\n\tyes"
    assert first.decode(first(unseen)["input_ids"]) == unseen
    # "the" was seen often enough to be one token.
    assert len(first(" the")["input_ids"]) == 1


def test_bpe_refuses_a_vocabulary_smaller_than_the_bytes() -> None:
    with pytest.raises(InputError, match="cannot hold the 256 bytes"):
        train_bpe(iter(TEXTS), 200)


def test_gpt2_files_make_a_tokenizer(tmp_path: Path) -> None:
    trained = json.loads(train_bpe(iter(TEXTS), 300).backend_tokenizer.to_str())["model"]
    vocabulary = {("</s>" if token == "<eos>" else token): i for token, i in trained["vocab"].items()}
    merges = "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in trained["merges"])
    (tmp_path / "x-vocab.json.gz").write_bytes(gzip.compress(json.dumps(vocabulary).encode()))
    (tmp_path / "x-merges.txt.gz").write_bytes(gzip.compress(merges.encode()))
    tokenizer = existing_tokenizer(str(tmp_path))
    expected = train_bpe(iter(TEXTS), 300)("the cat sat")["input_ids"]
    assert tokenizer("the cat sat")["input_ids"] == expected
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("</s>", "<pad>")


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tokenizer here") as error:
        existing_tokenizer(str(tmp_path))
    assert str(tmp_path) in str(error.value)


def test_a_missing_pad_token_becomes_the_end_token_and_a_template_goes(tmp_path: Path) -> None:
    tokenizer = train_bpe(iter(TEXTS), 300)
    tokenizer.pad_token = None
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(tmp_path)
    loaded = existing_tokenizer(str(tmp_path))
    assert loaded.pad_token == loaded.eos_token
    assert loaded.chat_template is None
