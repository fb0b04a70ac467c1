"""Tokens made in bulk are those sentence-transformers makes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from reasoning_embedding.data import tokenize
from reasoning_embedding.data.tokens import chosen_encoder
from reasoning_embedding.errors import InputError

PROMPT = "Instruct: find the answer\nQuery: "
SENTENCE = "the cat sat on a mat and saw red fish in blue water where no dog had been before"
WORDS = SENTENCE.split()


def make_bpe(*, bos: bool, eos: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, as decoders have it: "Query: " + "cat" merges across the boundary."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([SENTENCE, PROMPT] * 3, trainer)
    template = f"{'<s> ' if bos else ''}$A{' </s>' if eos else ''}"
    bpe.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=512
    )


def random_texts(count: int, seed: int = 0) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    bodies = [" ".join(rng.choice(WORDS, rng.integers(1, 60))) for _ in range(count)]
    return [(PROMPT if rng.random() < 0.5 else "", body) for body in bodies]


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("eos", [False, True])
def test_bulk_equals_one_by_one(bos: bool, eos: bool) -> None:
    tokenizer = make_bpe(bos=bos, eos=eos)
    texts = random_texts(300)
    seen: list[tuple[int, int]] = []
    store = tokenize(
        texts,
        tokenizer,
        query_max_tokens=32,
        document_max_tokens=24,
        progress=lambda *done: seen.append(done),
    )
    prompt_length = len(tokenizer(PROMPT)["input_ids"]) - eos
    for index, (prompt, text) in enumerate(texts):
        expected = tokenizer(prompt + text, truncation=True, max_length=32 if prompt else 24)["input_ids"]
        assert store[index].tolist() == expected
        assert store.prompt_lengths[index] == (min(prompt_length, len(expected) - 1) if prompt else 0)
    assert store.values.dtype == store.prompt_lengths.dtype == np.int32
    assert store.lengths.tolist() == [len(store[index]) for index in range(len(store))]
    assert {(store.lengths == 32).any(), (store.lengths == 24).any()} == {True}
    assert seen[-1] == (300, 300)


def test_more_texts_than_a_chunk() -> None:
    tokenizer = make_bpe(bos=False, eos=False)
    texts = random_texts(5000)
    store = tokenize(texts, tokenizer, query_max_tokens=40, document_max_tokens=40)
    alone = tokenize(texts[-3:], tokenizer, query_max_tokens=40, document_max_tokens=40)
    assert len(store) == 5000
    assert all(np.array_equal(store[4997 + index], alone[index]) for index in range(3))


@pytest.mark.parametrize("eos", [False, True])
def test_as_sentence_transformers(tiny_backbone: Path, tmp_path: Path, eos: bool) -> None:
    from sentence_transformers.sentence_transformer.modules import Transformer
    from transformers import AutoModel

    AutoModel.from_pretrained(tiny_backbone).save_pretrained(tmp_path)
    make_bpe(bos=True, eos=eos).save_pretrained(tmp_path)
    module = Transformer(str(tmp_path), max_seq_length=48)
    assert module.tokenizer is not None
    # Two words at least: a one-word query is the case of the test below.
    texts = [(prompt, f"mat {text}") for prompt, text in random_texts(60)]
    store = tokenize(texts, module.tokenizer, query_max_tokens=48, document_max_tokens=48)
    for index, (prompt, text) in enumerate(texts):
        features = module.preprocess([text], prompt=prompt or None)
        assert store[index].tolist() == features["input_ids"][0].tolist()
        assert store.prompt_lengths[index] == features.get("prompt_length", 0)


def test_a_word_that_merges_with_the_prompt_is_still_pooled() -> None:
    tokenizer = make_bpe(bos=False, eos=False)
    assert len(tokenizer(PROMPT + "cat")["input_ids"]) == len(tokenizer(PROMPT)["input_ids"])
    store = tokenize([(PROMPT, "cat")], tokenizer, query_max_tokens=64, document_max_tokens=64)
    assert store.prompt_lengths[0] == store.lengths[0] - 1


def test_a_very_long_text_is_cut() -> None:
    tokenizer = make_bpe(bos=True, eos=True)
    words = " ".join(WORDS * 6000)
    assert len(words.split()) > 100_000
    start = time.perf_counter()
    store = tokenize([("", words), (PROMPT, words)], tokenizer, query_max_tokens=512, document_max_tokens=128)
    assert store.lengths.tolist() == [128, 512]
    assert store[0][-1] == store[1][-1] == tokenizer.eos_token_id
    assert time.perf_counter() - start < 20


def test_a_prompt_that_leaves_no_room() -> None:
    tokenizer = make_bpe(bos=False, eos=False)
    length = len(tokenizer(PROMPT)["input_ids"])
    texts = [("", "the cat"), (PROMPT, "the cat sat on a mat")]
    with pytest.raises(InputError, match=f"the prompt takes all {length} tokens of 1 query") as caught:
        tokenize(texts, tokenizer, query_max_tokens=length, document_max_tokens=64)
    assert f"raise data.query_max_tokens above {length}" in str(caught.value)
    assert (
        tokenize(texts, tokenizer, query_max_tokens=length + 1, document_max_tokens=64).lengths[1]
        == length + 1
    )


def test_a_text_without_tokens_is_named() -> None:
    # Without bytes and without <unk>, a BPE tokenizer drops the characters it does not know.
    bpe = Tokenizer(models.BPE({"a": 0}, []))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe)
    with pytest.raises(InputError, match="1 text has no tokens") as caught:
        tokenize([("", "a"), ("", "\u6c34")], tokenizer, query_max_tokens=8, document_max_tokens=8)
    assert caught.value.where == "text '\u6c34'"


def test_no_pad_token_is_needed() -> None:
    tokenizer = make_bpe(bos=False, eos=True)
    expected = tokenize(random_texts(50), tokenizer, query_max_tokens=40, document_max_tokens=40)
    tokenizer.pad_token = None
    store = tokenize(random_texts(50), tokenizer, query_max_tokens=40, document_max_tokens=40)
    assert tokenizer.pad_token_id is None
    assert np.array_equal(store.values, expected.values)


def test_a_limit_needs_room_beside_special_tokens() -> None:
    tokenizer = make_bpe(bos=True, eos=True)
    for limit in (1, 2):
        with pytest.raises(InputError, match="leave no room beside 2 special ones") as caught:
            tokenize([("", "the cat")], tokenizer, query_max_tokens=64, document_max_tokens=limit)
        assert caught.value.where == "data.document_max_tokens"
    assert tokenize([("", "the cat")], tokenizer, query_max_tokens=64, document_max_tokens=3).lengths[0] == 3


def test_no_texts(tiny_tokenizer: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_tokenizer)
    store = tokenize([], tokenizer, query_max_tokens=8, document_max_tokens=8)
    assert len(store) == 0
    assert store.lengths.tolist() == []


class Lowering(PreTrainedTokenizerFast):
    """Does to a text what its backend knows nothing of."""

    def __call__(self, text, *words, **settings):
        return super().__call__([one.lower() for one in text], *words, **settings)


def test_the_fast_encoder_gives_what_the_slow_one_gives() -> None:
    tokenizer = make_bpe(bos=True, eos=True)
    texts = ["".join(pair) for pair in random_texts(200, seed=5)]
    fast = chosen_encoder(tokenizer, texts, 24)
    assert fast.__name__ == "fast"
    for limit in (4, 24, 500):
        for side in ("right", "left"):
            tokenizer.truncation_side = side
            slow = tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
            assert fast(texts, limit) == slow
            assert max(map(len, slow)) <= limit


def test_a_tokenizer_that_does_more_than_its_backend_keeps_its_own_way() -> None:
    """The control: the backend alone would give other tokens."""
    plain = make_bpe(bos=True, eos=True)
    tokenizer = Lowering(tokenizer_object=plain.backend_tokenizer, pad_token="<pad>")
    texts = [text.upper() for _, text in random_texts(20)]
    encode = chosen_encoder(tokenizer, texts, 24)
    assert encode.__name__ == "slow"
    assert (
        encode(texts, 24)
        == plain([text.lower() for text in texts], truncation=True, max_length=24)["input_ids"]
    )
    store = tokenize([("", text) for text in texts], tokenizer, query_max_tokens=24, document_max_tokens=24)
    assert store[0].tolist() == encode(texts[:1], 24)[0]
