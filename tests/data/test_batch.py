"""A batch: distinct texts, the slots they fill, and which texts are known to answer which."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reasoning_embedding.data.batch import Batch
from reasoning_embedding.data.plan import PlannedRows
from reasoning_embedding.data.tokens import TokenStore


def test_a_batch_holds_each_text_once() -> None:
    store = TokenStore(
        np.arange(10, dtype=np.int32), np.array([0, 2, 5, 7, 10]), np.array([1, 0, 0, 0], dtype=np.int32)
    )
    rows = PlannedRows(
        query=np.array([0, 3], dtype=np.int32),
        positive=np.array([2, 2], dtype=np.int32),
        negative=np.array([3], dtype=np.int32),
        negative_owner=np.array([0], dtype=np.int32),
        rows=np.array([0, 1]),
        source="s",
    )
    batch = Batch.from_plan(rows, store)
    assert [text.tolist() for text in batch.texts] == [[0, 1], [5, 6], [7, 8, 9]]
    assert batch.query.tolist() == [0, 2]
    assert batch.document.tolist() == [1, 1, 2]
    assert batch.owner.tolist() == [0, 1, 0]
    assert batch.prompt_lengths.tolist() == [1, 0, 0]
    assert batch.lengths.tolist() == [2, 2, 3]
    assert batch.score.isnan().all()
    assert batch.source == "s"


def test_a_hard_negative_may_be_no_querys() -> None:
    batch = Batch.from_arrays([], np.zeros(0), [0, 1], [2, 3, 4])
    assert batch.owner.tolist() == [0, 1, -1]


def test_a_batch_moves_with_all_that_the_loss_reads() -> None:
    batch = Batch.from_arrays([np.zeros(1, np.int32)] * 3, np.zeros(3), [0], [1, 2], seed=4, source="s")
    moved = batch.to(torch.device("meta"))
    for name in ("query", "document", "owner", "known", "score"):
        assert getattr(moved, name).is_meta
        assert getattr(moved, name).shape == getattr(batch, name).shape
    assert (moved.texts, moved.seed, moved.source) == (batch.texts, 4, "s")


@pytest.mark.parametrize("seed", range(40))
def test_every_known_answer_is_kept(seed: int) -> None:
    """What is known of the candidates, beside a query's own positive, is what the pairs say one by one."""
    rng = np.random.default_rng(seed)
    texts, queries, candidates = 7, 4, 9
    query, document = rng.integers(0, texts, queries), rng.integers(0, texts, candidates)
    pairs = rng.integers(0, texts, (3, 2))
    batch = Batch.from_arrays([], np.zeros(0), query, document, answers=pairs)
    answers = {*zip(query, document, strict=False), *map(tuple, pairs)}
    known = set(map(tuple, batch.known.T.tolist()))
    for row, asked in enumerate(query):
        for place, text in enumerate(document):
            if place != row:
                assert ((asked, text) in known) == ((asked, text) in answers)
