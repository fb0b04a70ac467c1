"""Dropout that belongs to a text: its masks are random, and functions of the text alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from reasoning_embedding.backbones import make_packs, text_keys, use_text_dropout
from reasoning_embedding.backbones.dropout import KEYS, TextDropout, keep_mask, token_keys
from tests.factories import random_batch
from tests.models import tiny_decoder, tiny_embedder
from tests.padded_oracle import keep_by_numpy


def _keys(tokens: int, *parts: int) -> torch.Tensor:
    return token_keys(torch.from_numpy(text_keys(tokens, *parts)), torch.arange(tokens))


@pytest.mark.parametrize("place", [(), (3,), (1 << 32, 7)])
def test_the_mask_is_the_published_hash(place: tuple[int, ...]) -> None:
    keys = _keys(24, 5).reshape(2, 3, 4)
    assert torch.equal(keep_mask(keys, 33, 0.3, *place), keep_by_numpy(keys, 33, 0.3, *place))


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_masks_are_as_random_as_torchs(probability: float) -> None:
    """Shares and correlations of rows, columns and places are within what chance allows."""
    rows, columns = 2048, 512
    spread = (probability * (1 - probability)) ** 0.5
    first, other = (
        (keep_mask(_keys(rows, 1, 2), columns, probability, place).double() - 1 + probability) / spread
        for place in (0, 1)
    )
    size = first.numel() ** 0.5
    assert abs(first.mean()) * size < 4.5
    assert abs((first * other).mean()) * size < 4.5
    assert (first[1:] * first[:-1]).mean().abs() * size < 4.5  # neighbouring tokens
    assert (first[:, 1:] * first[:, :-1]).mean().abs() * size < 4.5  # neighbouring features
    for axis, count in ((0, rows), (1, columns)):
        assert first.mean(axis).std() * count**0.5 == pytest.approx(1, abs=0.15)
        gram = (first @ first.T if axis else first.T @ first) / count**0.5
        assert gram.fill_diagonal_(0).std() == pytest.approx(1, abs=0.05)


def test_other_seeds_steps_and_texts_have_other_masks() -> None:
    first = text_keys(100, 0, 1)
    assert len({*first, *text_keys(100, 0, 2), *text_keys(100, 1, 1)}) == 300
    assert np.array_equal(first[:50], text_keys(50, 0, 1))


def test_what_is_kept_is_scaled_and_nothing_is_dropped_in_evaluation() -> None:
    module, states = TextDropout(0.25, 0), torch.ones(1, 64, 256)
    module.keys = _keys(64, 1)[None]
    dropped = module(states)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert dropped.mean() == pytest.approx(1, abs=0.02)
    assert torch.equal(module(states), dropped)
    assert torch.equal(module.eval()(states), states)


def test_a_decoder_without_dropout_stays_as_it_is() -> None:
    model = tiny_decoder()
    use_text_dropout(model)
    assert not any(isinstance(module, TextDropout) for module in model.modules())
    assert not model._forward_pre_hooks


def test_dropout_modules_of_a_decoder_follow_the_text_not_the_pack() -> None:
    embedder = tiny_embedder("gpt_neox", hidden_dropout=0.2, attention_dropout=0.2)
    use_text_dropout(embedder.model)
    assert not any(isinstance(module, nn.Dropout) and module.p > 0 for module in embedder.modules())
    embedder.train()
    batch = random_batch()
    keys = text_keys(len(batch.texts), 3)
    found = []
    for tokens in (1, 40, 10_000):
        out = torch.zeros(len(batch.texts), embedder.dimension)
        for pack, indices in make_packs(batch.texts, batch.prompt_lengths, tokens):
            assert KEYS in pack.with_dropout(keys[indices]).model_inputs()
            out[indices] = embedder(pack.with_dropout(keys[indices])).detach()
        found.append(out)
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])
    embedder.eval()
    pack, indices = make_packs(batch.texts, batch.prompt_lengths, 10_000)[0]
    assert (embedder(pack) - found[0][indices]).abs().max() > 1e-3  # the control: dropout was on
