"""Gradients are summed over ranks bucket by bucket, while the rest of them is still being made."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from reasoning_embedding.distributed import GradientSum, World
from reasoning_embedding.distributed.harness import run_ranks

WIDTH = 8
LAYER = WIDTH * WIDTH * 8  # bytes of one of three equal layers


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(WIDTH, WIDTH, bias=False, dtype=torch.float64) for _ in range(3)]
    layers[1].weight.requires_grad_(False)
    layers.append(nn.Linear(WIDTH, WIDTH, bias=False, dtype=torch.float64))
    return nn.Sequential(*layers)


def _loss(model: nn.Module, rank: int) -> Tensor:
    x = torch.randn(5, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(rank))
    return (model(x) ** 2).sum()


def _wanted(ranks: list[int]) -> list[Tensor | None]:
    model = _model()
    for rank in ranks:
        _loss(model, rank).backward()
    return [p.grad for p in model.parameters()]


def _same(found: list[Tensor | None], wanted: list[Tensor | None]) -> bool:
    return all(
        a is b is None or (a is not None and b is not None and torch.allclose(a, b, rtol=1e-12, atol=0))
        for a, b in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("bucket_bytes", [1, LAYER + 1, 1 << 20])
@pytest.mark.parametrize("idle", [None, 1], ids=["all", "one idle"])
def test_every_rank_gets_the_sum(bucket_bytes: int, idle: int | None) -> None:
    def summed(world: World) -> list[Tensor | None]:
        model = _model()
        held = GradientSum(model.parameters(), world, bucket_bytes=bucket_bytes)
        for _ in range(2):  # a second step starts anew
            model.zero_grad()
            if world.rank != idle:
                with held.last_pass():
                    _loss(model, world.rank).backward()
            held.finish()
        return [p.grad for p in model.parameters()]

    wanted = _wanted([rank for rank in range(3) if rank != idle])
    assert wanted[1] is None
    for found in run_ranks(3, summed):
        assert _same(found, wanted)
        assert not _same(found, _wanted([0]))


@pytest.mark.parametrize(("bucket_bytes", "early"), [(1, 2), (1 << 20, 0)])
def test_last_layers_are_sent_before_the_first_have_a_gradient(bucket_bytes: int, early: int) -> None:
    def log(world: World) -> list[str]:
        model, seen = _model(), []
        held = GradientSum(model.parameters(), world, bucket_bytes=bucket_bytes)
        model[0].weight.register_hook(lambda gradient: seen.append("first layer"))
        send, dist.all_reduce = dist.all_reduce, lambda *a, **k: (seen.append("sent"), send(*a, **k))[1]
        try:
            with held.last_pass():
                _loss(model, world.rank).backward()
            held.finish()
        finally:
            dist.all_reduce = send
        return seen

    for seen in run_ranks(2, log):
        assert seen.index("first layer") == early
        assert seen.count("sent") == (3 if early else 1)


def test_passes_before_the_last_add_up_and_one_after_it_is_refused() -> None:
    def steps(world: World) -> tuple[list[Tensor | None], str]:
        model = _model()
        held = GradientSum(model.parameters(), world, bucket_bytes=1)
        _loss(model, world.rank).backward()
        with held.last_pass():
            _loss(model, world.rank + 2).backward()
        held.finish()
        found = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        try:
            with held.last_pass():
                _loss(model, world.rank).backward()
                _loss(model, world.rank).backward()
        except RuntimeError as error:
            held.finish()
            return found, str(error)
        return found, "nothing said"

    for found, said in run_ranks(2, steps):
        assert _same(found, _wanted([0, 1, 2, 3]))
        assert "grew after it was sent" in said


def test_one_rank_sends_nothing() -> None:
    model = _model()
    held = GradientSum(model.parameters(), World())
    with held.last_pass():
        _loss(model, 0).backward()
    held.finish()
    assert _same([p.grad for p in model.parameters()], _wanted([0]))
