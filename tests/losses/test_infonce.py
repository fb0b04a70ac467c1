"""InfoNCE against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from reasoning_embedding.losses import infonce


def _vectors(rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, 8, generator=generator, dtype=torch.float64), dim=1)


def test_equals_the_definition_term_by_term() -> None:
    queries, documents, positive = _vectors(3, 0), _vectors(7, 1), torch.tensor([2, 0, 6])
    total, _ = infonce(queries, documents, positive, temperature=0.1)
    expected = 0.0
    for query, target in zip(queries.tolist(), positive.tolist(), strict=True):
        scores = [
            sum(a * b for a, b in zip(query, document, strict=True)) / 0.1 for document in documents.tolist()
        ]
        expected += math.log(sum(map(math.exp, scores))) - scores[target]
    assert float(total) == pytest.approx(expected, rel=1e-12)


def test_rows_add_up() -> None:
    queries, documents, positive = _vectors(4, 0), _vectors(9, 1), torch.tensor([0, 1, 2, 3])
    whole = infonce(queries, documents, positive, temperature=0.05)[0]
    halves = [infonce(queries[i::2], documents, positive[i::2], temperature=0.05)[0] for i in (0, 1)]
    torch.testing.assert_close(whole, halves[0] + halves[1])


def test_hits_are_counted() -> None:
    documents = torch.eye(4)
    _, correct = infonce(documents[[0, 1, 2]], documents, torch.tensor([0, 1, 3]), temperature=0.02)
    assert int(correct) == 2


def test_chance_level_of_equal_documents_is_log_candidates() -> None:
    documents = torch.ones(8, 4) / 2
    assert float(infonce(documents[:1], documents, torch.tensor([0]), temperature=0.02)[0]) == pytest.approx(
        math.log(8), abs=1e-5
    )


def test_half_precision_is_scored_in_float32() -> None:
    queries, documents = _vectors(3, 0).bfloat16(), _vectors(5, 1).bfloat16()
    found = infonce(queries, documents, torch.arange(3), temperature=0.02)[0]
    assert found.dtype == torch.float32
    exact = infonce(queries.double(), documents.double(), torch.arange(3), temperature=0.02)[0]
    assert float(found) == pytest.approx(float(exact), rel=1e-5)
