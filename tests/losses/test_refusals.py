"""Losses that cannot be are refused, and say why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reasoning_embedding import config
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.errors import InputError
from reasoning_embedding.losses import build_loss
from tests.losses.loss_reference import random_slots, unit_vectors

GTE = ["query_document", "query_query", "document_query", "document_document"]


@pytest.mark.parametrize(
    ("section", "what"),
    [
        ({"temperature": 0}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"matryoshka": []}, "matryoshka"),
        ({"matryoshka": [4, 4]}, "named twice"),
        ({"matryoshka": [4], "matryoshka_weights": [1, 2]}, "one weight"),
        ({"matryoshka_weights": [1]}, "one weight"),
        ({"false_negatives": {"margin": 3}}, "less than or equal to 2"),
        ({"false_negatives": {"ratio": 0}}, "greater than 0"),
        ({"false_negatives": {"ratio": 0.9, "margin": 0.1}}, "one of the two"),
        ({"false_negatives": {}}, "one of the two"),
        ({"directions": []}, "query_document"),
        ({"directions": ["query_query"]}, "query_document"),
        ({"directions": ["query_document", "query_document"]}, "named twice"),
        ({"directions": GTE, "softmax": "per_direction"}, "positive among its candidates"),
        ({"learn_temperature": {"minimum": 0.1, "maximum": 0.05}}, "below maximum"),
        ({"learn_temperature": {"minimum": 0.1}}, "outside"),
        ({"sigreg": {}}, "weight"),
        ({"uniformity": {"weight": -1}}, "weight"),
    ],
)
def test_bad_sections_are_refused(section: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        config.InfoNCE.model_validate(section)


def test_widths_beyond_the_backbone_are_refused() -> None:
    with pytest.raises(InputError, match="width 16 is more than the 8 dimensions"):
        build_loss(config.InfoNCE(matryoshka=[4, 16]), 8)


def test_an_anchor_must_be_given() -> None:
    loss = build_loss(config.InfoNCE(anchor=config.Anchor(weight=1.0)))
    assert loss.needs_anchor
    with pytest.raises(ValueError, match="before its first step"):
        loss.compute(unit_vectors(21, 8, 0), random_slots(0))


@pytest.mark.parametrize("rank", [0, 1])
def test_too_few_texts_for_an_anchor_are_refused_on_every_rank(rank: int) -> None:
    loss = build_loss(config.InfoNCE(anchor=config.Anchor(weight=1.0, debiased=True)))
    few, batch = unit_vectors(3, 8, 0), Batch.from_arrays([], np.zeros(0), [0], [1, 2], [0, 0])
    with pytest.raises(InputError, match="3 distinct texts, and debiased CKA is defined from 4 on"):
        loss.compute(few, batch, rank=rank, ranks=2, anchor=few)
