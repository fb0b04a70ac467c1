"""One gradient whatever the number of ranks; the control that must differ is that of every engine."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.distributed import (
    World,
    all_gather_rows,
    deal,
    explain_lost_ranks,
    max_over_ranks,
    sum_over_ranks,
)
from reasoning_embedding.distributed.harness import run_ranks
from reasoning_embedding.errors import TrainingError
from reasoning_embedding.losses import build_loss
from reasoning_embedding.training import contrastive_step
from tests.factories import random_batch
from tests.models import exact_norms, gradients, relative, tiny_embedder

LOSS = build_loss(config.InfoNCE(temperature=0.05, tile_rows=2))


def _gradient(world: World, queries: int, store_tokens: int | None = None) -> tuple[float, torch.Tensor]:
    with exact_norms():
        embedder = tiny_embedder(double=True)
        output = contrastive_step(
            embedder, random_batch(queries), LOSS, world, pack_tokens=40, store_tokens=store_tokens
        )
        return output.loss, gradients(embedder)


@pytest.mark.parametrize("store_tokens", [None, 30, 0], ids=["store", "hybrid", "replay"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_ranks_give_the_gradient_of_one_process(size: int, store_tokens: int | None) -> None:
    loss, wanted = _gradient(World(), 7)
    for found_loss, found in run_ranks(size, _gradient, 7, store_tokens):
        assert found_loss == pytest.approx(loss, rel=1e-12)
        assert relative(found, wanted) < 1e-12


def test_ranks_with_nothing_to_do_do_not_hang() -> None:
    def few(world: World) -> tuple[float, torch.Tensor, int]:
        batch = random_batch(1, 2)  # three texts and one query for four ranks
        with exact_norms():
            embedder = tiny_embedder(double=True)
            output = contrastive_step(embedder, batch, LOSS, world)
        return output.loss, gradients(embedder), len(deal(batch.lengths, world.size)[world.rank])

    results = run_ranks(4, few)
    assert min(texts for _, _, texts in results) == 0
    with exact_norms():
        embedder = tiny_embedder(double=True)
        loss = contrastive_step(embedder, random_batch(1, 2), LOSS, World()).loss
        wanted = gradients(embedder)
    for found_loss, found, _ in results:
        assert found_loss == pytest.approx(loss, rel=1e-12)
        assert relative(found, wanted) < 1e-12


def test_uneven_rows_are_gathered_in_rank_order() -> None:
    def gather(world: World, counts: Sequence[int]) -> torch.Tensor:
        rows = torch.full((counts[world.rank], 2), float(world.rank))
        return all_gather_rows(rows, counts, world)

    for gathered in run_ranks(3, gather, [2, 0, 3]):
        assert gathered[:, 0].tolist() == [0, 0, 2, 2, 2]


def test_ranks_agree_on_what_one_noticed() -> None:
    def notice(world: World) -> int:
        return max_over_ranks(15 if world.rank == 1 else 0, world)

    assert run_ranks(3, notice) == [15, 15, 15]


def test_a_rank_that_fails_is_named() -> None:
    def fail(world: World) -> None:
        if world.rank == 1:
            raise ValueError("broken on purpose")

    with pytest.raises(TrainingError, match=r"rank 1 failed:[\s\S]*broken on purpose"):
        run_ranks(2, fail)


def test_a_rank_that_dies_ends_the_others() -> None:
    def die(world: World) -> float:
        if world.rank == 1:
            os._exit(9)
        with explain_lost_ranks(world):
            return float(sum_over_ranks(torch.ones(1), world))

    with pytest.raises(TrainingError) as caught:
        run_ranks(3, die, timeout=10)
    first, *others = str(caught.value).splitlines()
    assert first == "rank 1 died with exit code 9"
    # The others noticed it by themselves, within their timeout: neither had to be killed.
    assert "was killed" not in str(caught.value)
    assert any(f"rank {rank} lost another of the 3 ranks" in line for line in others for rank in (0, 2))
    assert others[-1].strip() == "-> look for the rank that failed first, and go on with --resume"
