"""Dealing texts to ranks by tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasoning_embedding.distributed import deal, imbalance


@settings(max_examples=60, deadline=None)
@given(st.integers(64, 512), st.integers(2, 8), st.floats(0.3, 1.0), st.integers(0, 2**32 - 1))
def test_ranks_are_within_two_percent(texts: int, ranks: int, spread: float, seed: int) -> None:
    drawn = np.random.default_rng(seed).lognormal(np.log(120) - spread**2 / 2, spread, texts)
    lengths = np.clip(drawn, 1, 512).astype(np.int64)
    shares = deal(lengths, ranks)
    assert sorted(np.concatenate(shares).tolist()) == list(range(texts))
    loads = np.array([lengths[share].sum() for share in shares])
    assert loads.max() - loads.min() <= 0.02 * loads.mean()
    assert imbalance(lengths, shares) <= 0.02


def test_dealing_in_turn_is_not_as_even() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(4.5, 0.8, 64), 1, 512).astype(np.int64)
    assert imbalance(lengths, [np.arange(64)[rank::8] for rank in range(8)]) > 0.1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12).map(np.array), st.integers(2, 5))
def test_any_few_texts_are_dealt_once_and_no_worse_than_longest_first(
    lengths: np.ndarray, ranks: int
) -> None:
    shares = deal(lengths, ranks)
    assert sorted(np.concatenate(shares).tolist()) == list(range(len(lengths)))
    loads = np.zeros(ranks)
    for length in sorted(lengths, reverse=True):
        loads[loads.argmin()] += length
    assert max(lengths[share].sum() for share in shares) <= loads.max()


def test_swaps_even_out_what_longest_first_leaves() -> None:
    lengths = np.array([5, 5, 4, 4, 3, 3, 3])  # longest first: 15 and 12
    assert [int(lengths[share].sum()) for share in deal(lengths, 2)] in ([14, 13], [13, 14])


def test_a_text_beyond_a_share_is_not_cut() -> None:
    lengths = np.array([1000, *[10] * 20])
    shares = deal(lengths, 2)
    assert sorted(int(lengths[share].sum()) for share in shares) == [200, 1000]
    assert imbalance(lengths, shares) == pytest.approx(1000 / 600 - 1)
