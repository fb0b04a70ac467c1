"""Packs, pooling and encoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder, load_decoder, make_pack, mean_pool, plan_packs


@given(st.lists(st.integers(1, 300), min_size=1, max_size=80), st.integers(1, 400))
def test_packs_are_a_permutation_within_the_budget(lengths: list[int], budget: int) -> None:
    sizes = np.array(lengths)
    packs = plan_packs(sizes, budget)
    assert sorted(np.concatenate(packs).tolist()) == list(range(len(lengths)))
    for pack in packs:
        assert sizes[pack].sum() <= budget or len(pack) == 1
        assert (np.diff(sizes[pack]) <= 0).all()


@pytest.mark.parametrize("include_prompt", [True, False])
def test_mean_pool_equals_a_loop(include_prompt: bool) -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 9, n) for n in (5, 3, 7)]
    pack = make_pack(texts, [2, 0, 6])
    states = torch.randn(15, 4, dtype=torch.float64)
    pooled = mean_pool(states, pack, include_prompt=include_prompt)
    for row, (start, stop, prompt) in enumerate([(0, 5, 2), (5, 8, 0), (8, 15, 6)]):
        expected = states[start + (0 if include_prompt else prompt) : stop].mean(0)
        torch.testing.assert_close(pooled[row], expected)


def test_half_precision_states_are_summed_in_float32() -> None:
    pack = make_pack([np.zeros(4096, dtype=np.int32)], [0])
    states = torch.full((4096, 1), 1.01, dtype=torch.bfloat16)
    assert mean_pool(states, pack, include_prompt=True).item() == pytest.approx(float(states[0]), abs=1e-4)


@pytest.fixture(scope="module")
def embedder(tiny_backbone: Path) -> Embedder:
    return Embedder(*load_decoder(str(tiny_backbone), bidirectional=True), config.Pooling())


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
    counted = Embedder(embedder.model, embedder.tokenizer, config.Pooling(include_prompt=True))
    np.testing.assert_allclose(
        counted.encode(["red cat"], prompt="find the "), counted.encode(["find the red cat"]), atol=1e-6
    )
    assert np.abs(counted.encode(["red cat"], prompt="find the ") - prompted).max() > 1e-3
