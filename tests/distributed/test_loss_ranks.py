"""Whole steps with a configured loss, over ranks: one gradient, one temperature."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.distributed import World
from reasoning_embedding.distributed.harness import run_ranks
from reasoning_embedding.losses import build_loss
from reasoning_embedding.training import contrastive_step
from tests.factories import random_batch
from tests.losses.loss_reference import unit_vectors
from tests.models import exact_norms, gradients, relative, tiny_embedder

EVERYTHING: dict[str, Any] = {
    "temperature": 0.05,
    "learn_temperature": {},
    "directions": ["query_document", "query_query", "document_document"],
    "mask_same_text": True,
    "false_negatives": {"margin": 0.1},
    "matryoshka": [16],
    "distillation": {"weight": 0.5},
    "teacher_vectors": {"folder": "any", "weight": 0.5},
    "uniformity": {"weight": 0.5},
    "sigreg": {"weight": 0.2, "directions": 8},
    "anchor": {"weight": 2.0},
    "tile_rows": 2,
}


def _batch() -> Batch:
    plain = random_batch(5, 6)
    owner = np.concatenate([np.arange(5), np.array([0, 0, 1, 3, 3, 4])])
    score = np.random.default_rng(0).normal(size=11).astype(np.float32)
    batch = Batch.from_arrays(
        plain.texts, plain.prompt_lengths, plain.query, plain.document, owner, score=score, seed=3
    )
    return replace(batch, teacher=unit_vectors(len(plain.texts), 6, 1))


def _step(
    world: World, without: str = "", *, once_a_rank: bool = False, stored: int | None = None
) -> tuple[dict[str, float], torch.Tensor, float]:
    with exact_norms():
        embedder = tiny_embedder(double=True)
        anchor = tiny_embedder(double=True, num_hidden_layers=1).requires_grad_(False)
        settings = {key: value for key, value in EVERYTHING.items() if key != without}
        loss = build_loss(config.InfoNCE.model_validate(settings), embedder.dimension)
        if once_a_rank:
            compute = loss.compute
            loss.compute = lambda x, batch, *, anchor, **_: compute(x, batch, anchor=anchor)  # type: ignore[method-assign]
        output = contrastive_step(
            embedder, _batch(), loss, world, pack_tokens=40, store_tokens=stored, anchor=anchor
        )
        loss.update(0.01)
        measures = {"loss": output.loss, "accuracy": output.accuracy, **output.parts}
        return measures, gradients(embedder), loss.state()["log_temperature"]


def test_ranks_give_the_gradient_and_temperature_of_one_process() -> None:
    measures, wanted, temperature = _step(World())
    terms = {"distillation", "teacher_vectors", "uniformity", "sigreg", "anchor"}
    assert {"infonce", "infonce_16"} | terms < set(measures)
    for size, stored in ((2, 0), (2, 40), (3, None)):  # replayed, some packs stored, all stored
        for found_measures, found, found_temperature in run_ranks(size, partial(_step, stored=stored)):
            assert found_measures == pytest.approx(measures, rel=1e-11)
            assert relative(found, wanted) < 1e-11
            assert found_temperature == pytest.approx(temperature, rel=1e-13)


@pytest.mark.parametrize("name", ["distillation", "teacher_vectors", "uniformity", "sigreg", "anchor"])
def test_a_term_less_is_another_gradient(name: str) -> None:
    assert relative(_step(World(), name)[1], _step(World())[1]) > 1e-3


def test_every_rank_computing_the_whole_would_be_wrong() -> None:
    """The control: what belongs to the batch counted once a rank."""

    def wrong(world: World) -> torch.Tensor:
        return _step(world, once_a_rank=True)[1]

    wanted = _step(World())[1]
    for found in run_ranks(2, wrong):
        assert relative(found, wanted) > 0.05
