"""Packs, pooling and encoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reasoning_embedding.backbones import (
    Embedder,
    Readout,
    load_decoder,
    make_pack,
    make_packs,
    packs_for,
    pool,
    streams_for,
)

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=80).map(np.array)


@given(LENGTHS, st.integers(1, 400), st.integers(1, 100))
def test_packs_are_an_even_permutation_within_the_budget(
    sizes: np.ndarray, budget: int, at_least: int
) -> None:
    packs = packs_for(sizes, budget, at_least=at_least)
    assert sorted(np.concatenate(packs).tolist()) == list(range(len(sizes)))
    assert len(packs) >= at_least
    assert len(packs) == max(len(packs_for(sizes, budget)), at_least)
    for pack in packs:
        assert sizes[pack].sum() <= budget or len(pack) == 1
        assert (np.diff(sizes[pack]) <= 0).all()
    if any(len(pack) > 1 for pack in packs):
        assert all(len(pack) for pack in packs), "no empty pack while another could be cut"


def _wide(texts: int, seed: int) -> np.ndarray:
    """Lengths of the wide mix: log-normal, mean 120, 10 to 512 tokens."""
    drawn = np.random.default_rng(seed).lognormal(np.log(120) - 0.4**2, 0.8, texts)
    return np.clip(drawn, 10, 512).astype(np.int64)


def test_packs_are_close_to_even() -> None:
    lengths = _wide(768, 0)
    loads = [int(lengths[pack].sum()) for pack in packs_for(lengths, 16384)]
    assert len(loads) == -(-lengths.sum() // 16384)
    assert max(loads) < 1.02 * np.mean(loads)


@given(LENGTHS, st.integers(1, 400), st.integers(1, 12))
def test_streams_hold_every_text_once(sizes: np.ndarray, budget: int, at_least: int) -> None:
    streams = streams_for(sizes, budget, at_least=at_least)
    assert sorted(np.concatenate([texts for texts, _ in streams]).tolist()) == list(range(len(sizes)))
    assert len(streams) >= at_least
    for texts, tokens in streams:
        assert sizes[texts].sum() <= tokens
        assert tokens <= budget or (len(texts) == 1 and tokens == sizes[texts[0]])


@pytest.mark.parametrize(
    ("texts", "budget"),
    [(24, 4096), (24, 16384), (96, 4096), (192, 16384), (768, 16384), (768, 32768), (3072, 32768)],
)
def test_streams_of_the_wide_mix_are_full_and_of_one_size(texts: int, budget: int) -> None:
    fills, last = [], set()
    for seed in range(8):
        lengths = _wide(texts, seed)
        streams = streams_for(lengths, budget)
        fills.append(lengths.sum() / sum(tokens for _, tokens in streams))
        assert all(tokens == budget for _, tokens in streams[:-1])
        last.add(streams[-1][1])
        assert len(streams) == -(-lengths.sum() // budget), "the fewest there can be"
    assert np.mean(fills) >= 0.99
    assert all(tokens % 32 == 0 for tokens in last)


@pytest.mark.parametrize("include_prompt", [True, False])
def test_mean_pool_equals_a_loop(include_prompt: bool) -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 9, n) for n in (5, 3, 7)]
    pack = make_pack(texts, [2, 0, 6])
    states = torch.randn(15, 4, dtype=torch.float64)
    pooled = pool(states, pack, include_prompt=include_prompt)
    for row, (start, stop, prompt) in enumerate([(0, 5, 2), (5, 8, 0), (8, 15, 6)]):
        expected = states[start + (0 if include_prompt else prompt) : stop].mean(0)
        torch.testing.assert_close(pooled[row], expected)


def test_dummy_texts_are_left_out_of_the_pool() -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 9, n) for n in (5, 3)]
    plain, padded = make_pack(texts, [2, 0]), make_pack(texts, [2, 0], pad_to=20)
    assert len(padded) == 2
    assert len(padded.input_ids) == 20
    assert len(padded.cu_seqlens) == 64
    assert padded.cu_seqlens.diff().tolist()[:6] == [5, 3, 5, 5, 2, 0]
    states = torch.randn(20, 4)
    for include_prompt in (True, False):
        torch.testing.assert_close(
            pool(states, padded, include_prompt=include_prompt),
            pool(states[:8], plain, include_prompt=include_prompt),
        )


def test_half_precision_states_are_summed_in_float32() -> None:
    pack = make_pack([np.zeros(4096, dtype=np.int32)], [0])
    states = torch.full((4096, 1), 1.01, dtype=torch.bfloat16)
    assert pool(states, pack, include_prompt=True).item() == pytest.approx(float(states[0]), abs=1e-4)


@pytest.fixture(scope="module")
def embedder(tiny_backbone: Path) -> Embedder:
    return Embedder(*load_decoder(str(tiny_backbone), bidirectional=True))


@pytest.mark.parametrize("streams", [False, True])
def test_padding_and_empty_packs_change_no_embedding(embedder: Embedder, streams: bool) -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(3, 90, n) for n in (9, 5, 3, 12)]
    alone = torch.cat([embedder(make_pack([text], [1])) for text in texts])
    packs = make_packs(texts, [1] * 4, 16, at_least=6, streams=streams)
    assert len(packs) == 6
    for pack, indices in packs:
        vectors = embedder(pack)
        torch.testing.assert_close(vectors, alone[indices])
        assert len(pack) or vectors.requires_grad, "a forward without texts takes part in the backward pass"


def test_encoding_keeps_order_whatever_the_packs(embedder: Embedder) -> None:
    texts = ["red cat", "the old king sees a new star", "dog", "blue fish in the river"]
    whole = embedder.encode(texts)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    for row, text in enumerate(texts):
        np.testing.assert_allclose(embedder.encode([text])[0], whole[row], atol=1e-6)
    np.testing.assert_allclose(embedder.encode(texts, pack_tokens=1), whole, atol=1e-6)


def test_encoding_reports_progress_and_takes_nothing(embedder: Embedder) -> None:
    seen: list[tuple[int, int]] = []
    embedder.encode(["cat"] * 5, pack_tokens=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert embedder.encode([]).shape == (0, 32)


def test_a_very_long_text_is_cut(embedder: Embedder) -> None:
    long = " ".join(["cat", "dog", "sun"] * 40_000)
    np.testing.assert_allclose(
        embedder.encode([long], max_tokens=30),
        embedder.encode([" ".join(["cat", "dog", "sun"] * 10)]),
        atol=1e-6,
    )


def test_the_prompt_is_seen_but_not_pooled(embedder: Embedder) -> None:
    plain, prompted = embedder.encode(["red cat"]), embedder.encode(["red cat"], prompt="find the ")
    assert np.abs(plain - prompted).max() > 1e-4
    counted = Embedder(embedder.model, embedder.tokenizer, Readout(include_prompt=True))
    np.testing.assert_allclose(
        counted.encode(["red cat"], prompt="find the "), counted.encode(["find the red cat"]), atol=1e-6
    )
    assert np.abs(counted.encode(["red cat"], prompt="find the ") - prompted).max() > 1e-3
