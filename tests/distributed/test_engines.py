"""One gradient on every engine: exactly that of one padded forward, with dropout on."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from reasoning_embedding.backbones import Head, Pack, Readout, make_pack
from reasoning_embedding.backbones.cpu.decoder_block import DecoderBlock
from reasoning_embedding.distributed import World, explain_lost_ranks
from reasoning_embedding.distributed.harness import run_ranks
from reasoning_embedding.errors import TrainingError
from reasoning_embedding.training import contrastive_step
from reasoning_embedding.training import step as step_module
from tests.distributed.engine_cases import (
    DROPOUT,
    ENGINES,
    LOSS,
    STORE,
    TOLERANCE,
    Case,
    build,
    every_case,
    steps,
    wanted,
)
from tests.factories import random_batch
from tests.models import exact_norms, gradients, relative, tiny_embedder
from tests.padded_oracle import padded_loss

#: Both architectures, every memory mode, checkpointing, adapters, a batch that leaves ranks idle, and texts
#: that are longer than a pack.
SAMPLE = [
    Case("qwen3", "store"),
    Case("llama", "hybrid", checkpointing=True, lora=True),
    Case("qwen3", "replay", lora=True),
    Case("llama", "hybrid", idle=True),
    Case("qwen3", "hybrid", pack_tokens=5),
]
HEADS = (Head(32, 24, activation="tanh"), Head(24, 16, bias=False))
#: Every pooling, both directions, prompt in and out, trained heads; adapters leave heads trained.
READOUTS = [
    Case("qwen3", "hybrid", readout=Readout("causal", "last", heads=HEADS)),
    Case("llama", "replay", lora=True, readout=Readout("causal", "weighted_mean", heads=HEADS[:1])),
    Case("llama", "store", readout=Readout("bidirectional", "first", heads=HEADS[:1])),
    Case("qwen3", "replay", checkpointing=True, readout=Readout("causal", "mean", include_prompt=True)),
    Case("qwen3", "hybrid", idle=True, readout=Readout("bidirectional", "weighted_mean", heads=HEADS)),
]
#: Every rank runs these by other functions than the oracle.
FUSED = [
    Case("qwen3", "store", fused=True),
    Case("llama", "hybrid", checkpointing=True, fused=True),
    Case("llama", "replay", pack_tokens=5, fused=True),
    Case("qwen3", "hybrid", idle=True, fused=True),
]
#: What stands for them is in the default tests.
SLOW = ("zero1", "zero3")


def _check(kind: str, size: int, cases: list[Case], run: Callable[..., Any] = steps) -> None:
    targets = [wanted(case) for case in cases]  # first: forked ranks share what it imports
    for found in run_ranks(size, run, kind, cases):
        for case, (loss, gradient), (exact_loss, exact) in zip(cases, found, targets, strict=True):
            assert loss == pytest.approx(exact_loss, rel=TOLERANCE[kind]), case
            assert relative(gradient, exact) < TOLERANCE[kind], case


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize(("size", "cases"), [(2, SAMPLE[:3]), (3, [SAMPLE[1], *SAMPLE[3:]])], ids=["2", "3"])
def test_every_engine_gives_the_gradient_of_one_padded_forward(
    kind: str, size: int, cases: list[Case]
) -> None:
    _check(kind, size, cases)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("replicated", 1),
        ("fsdp2", 2),
        *(pytest.param(kind, 2, marks=pytest.mark.slow) for kind in ("replicated", "zero2")),
    ],
)
def test_every_readout_gives_the_gradient_of_one_padded_forward(kind: str, size: int) -> None:
    _check(kind, size, READOUTS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SLOW)
def test_every_readout_gives_it_at_the_other_stages_too(kind: str) -> None:
    _check(kind, 2, READOUTS)


def test_another_readout_has_another_gradient() -> None:
    """The controls: each word of a readout moves the gradient, and so does a head that is left out or frozen."""
    case = READOUTS[0]
    _, exact = wanted(case)
    others: list[dict[str, Any]] = [{"pooling": pooling} for pooling in ("mean", "weighted_mean", "first")]
    with exact_norms():
        for change in (*others, {"attention": "bidirectional"}):
            embedder = case.embedder()
            readout = replace(case.readout, **change)
            padded_loss(embedder, case.batch(), dropout=DROPOUT, readout=readout).backward()
            assert relative(gradients(embedder), exact) > 0.05, change
        inside = [replace(case.readout, pooling="mean", include_prompt=include) for include in (True, False)]
        moved = []
        for readout in inside:
            embedder = case.embedder()
            padded_loss(embedder, case.batch(), dropout=DROPOUT, readout=readout).backward()
            moved.append(gradients(embedder))
        assert relative(*moved) > 0.05
        embedder = case.embedder()
        embedder.heads.requires_grad_(False)
        contrastive_step(embedder, case.batch(), LOSS, World(), dropout=DROPOUT)
        assert relative(gradients(embedder), exact) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("memory", STORE)
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_whole_matrix(kind: str, memory: str, size: int) -> None:
    _check(kind, size, every_case(memory))


@pytest.mark.parametrize("size", [2, 3, 4])
def test_ranks_whose_layers_are_one_function_each_give_it_too(size: int) -> None:
    def fused(world: World, kind: str, cases: list[Case]) -> list[tuple[float, torch.Tensor]]:
        runs, apply = itertools.count(), DecoderBlock.apply
        DecoderBlock.apply = lambda *given: (next(runs), apply(*given))[1]  # type: ignore[method-assign]
        found = steps(world, kind, cases)
        # Two layers in each case but the last, of which a third rank and further ones have no text.
        assert next(runs) >= 2 * len(cases[:-1])
        return found

    _check("replicated", size, FUSED, fused)


def test_without_dropout_with_another_seeds_or_causal_the_gradient_is_another() -> None:
    """The controls of the matrix."""
    case = SAMPLE[0]
    _, exact = wanted(case)
    with exact_norms():
        for dropout in (None, (7, 4)):
            embedder = case.embedder().train(dropout is not None)
            contrastive_step(embedder, case.batch(), LOSS, World(), dropout=dropout)
            assert relative(gradients(embedder), exact) > 0.05
        embedder = case.embedder()
        padded_loss(embedder, case.batch(), dropout=DROPOUT, causal=True).backward()
        assert relative(gradients(embedder), exact) > 0.05


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind in SLOW else []) for kind in ENGINES]
)
def test_the_popular_wrong_gather_fails_on_every_engine(kind: str) -> None:
    """Own slice put back: the other ranks' losses say nothing about this rank's rows."""

    def wrong(world: World) -> Any:
        right = step_module.sum_over_ranks
        step_module.sum_over_ranks = lambda tensor, world: (
            tensor if tensor.ndim == 2 else right(tensor, world)
        )
        return steps(world, kind, SAMPLE[:1])

    for [(_, found)] in run_ranks(2, wrong):
        assert relative(found, wanted(SAMPLE[0])[1]) > 0.05


@pytest.mark.parametrize("kind", ["fsdp2", "zero2"])
def test_bf16_is_computed_and_gradients_stay_in_fp32(kind: str) -> None:
    half = torch.bfloat16
    wish = {"compute": half}

    def losses(world: World) -> list[float]:
        found = []
        for chosen, options, autocast in (
            ("replicated", {}, None),
            ("replicated", {}, half),
            (kind, wish, half),
        ):
            embedder = tiny_embedder()
            engine = build(chosen, embedder, world, **options)
            step = contrastive_step(embedder, random_batch(7), LOSS, world, autocast=autocast, engine=engine)
            found.append(step.loss)
        assert all(weight.dtype == torch.float32 for weight in engine.weights().values())
        return found

    for exact, rounded, sharded in run_ranks(2, losses):
        assert sharded != exact
        assert sharded == pytest.approx(exact, rel=2e-2)
        # ZeRO is under the same autocast; FSDP2 gathers weights in bf16, and its residual stream is so too.
        assert (sharded == rounded) == (kind == "zero2")


class _Reductions(TorchDispatchMode):
    """Counts the elements that reductions send."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        if name.startswith("c10d::") and "reduce" in name:
            self.elements += sum(t.numel() for t in _tensors(args))
        return func(*args, **(kwargs or {}))


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for item in value for t in _tensors(item)] if isinstance(value, list | tuple) else []


@pytest.mark.parametrize("kind", ENGINES)
def test_gradients_are_reduced_once_a_step_whatever_the_number_of_packs(kind: str) -> None:
    def reduced(world: World) -> list[tuple[int, int]]:
        found = []
        for case in (Case(memory="replay", pack_tokens=10), Case(memory="store", pack_tokens=10_000)):
            engine = build(kind, case.embedder(), world)
            embedded = case.embed(engine, np.arange(9))
            packs = len(embedded)
            with _Reductions() as reductions:
                embedded.backward(torch.ones(9, engine.embedder.dimension, dtype=torch.float64))
            found.append((packs, reductions.elements))
        return found

    for (packs, sent), (pack, sent_once) in run_ranks(2, reduced):
        assert packs > pack == 1
        assert sent == sent_once > 0


@pytest.mark.parametrize("kind", ["fsdp2", "zero2", "zero3"])
def test_the_main_rank_alone_holds_whole_moments(kind: str) -> None:
    case = Case()

    def held(world: World) -> tuple[int, int]:
        engine = build(kind, case.embedder(), world)
        elements = engine.state_elements()
        case.embed(engine, np.arange(9)).backward(
            torch.ones(9, engine.embedder.dimension, dtype=torch.float64)
        )
        engine.update(1e-3)
        state = engine.optimizer_state()["state"]
        return elements, sum(
            value.numel() for entry in state.values() for value in entry.values() if value.ndim
        )

    parameters = sum(p.numel() for p in case.embedder().parameters())
    (first, whole), (second, none) = run_ranks(2, held)
    assert (whole, none) == (2 * parameters, 0)
    assert parameters <= first + second < 1.2 * parameters


@pytest.mark.parametrize("kind", ["fsdp2", "zero3"])
def test_ranks_score_a_whole_copy_each_by_itself(kind: str) -> None:
    """Adapters are merged into it, and ranks may run different numbers of forwards."""
    case = Case(lora=True)

    def score(world: World) -> torch.Tensor:
        engine = build(kind, case.embedder(), world)
        full = engine.full_embedder().eval()
        pack = make_pack(case.batch().texts, case.batch().prompt_lengths)
        with torch.no_grad():
            return [full(pack) for _ in range(world.rank + 1)][-1]

    with torch.no_grad():
        wanted = case.embedder().eval()(make_pack(case.batch().texts, case.batch().prompt_lengths))
    for found in run_ranks(2, score):
        assert relative(found, wanted) < 1e-6


@pytest.mark.parametrize(
    ("kind", "seconds"), [("replicated", 0), ("fsdp2", 0), ("zero3", 0), ("replicated", 60)]
)
def test_a_rank_that_is_gone_ends_the_others_with_a_message(kind: str, seconds: int) -> None:
    def fail(world: World) -> None:
        case = SAMPLE[0]
        engine = build(kind, case.embedder(), world)
        if world.rank == 1:
            forward, calls = engine.forward, iter(range(99))

            def failing(pack: Pack) -> torch.Tensor:
                if next(calls) == 2:
                    time.sleep(seconds)
                    os._exit(9)
                return forward(pack)

            engine.forward = failing  # type: ignore[method-assign]
        with explain_lost_ranks(world):
            contrastive_step(engine.embedder, case.batch(), LOSS, world, pack_tokens=10, engine=engine)

    with pytest.raises(TrainingError) as caught:
        run_ranks(2, fail, timeout=5 if seconds else 60)
    gone, failed, *trace = str(caught.value).splitlines()
    assert gone == f"rank 1 {'was killed: it took too long' if seconds else 'died with exit code 9'}"
    assert failed == "rank 0 failed:"
    assert any("rank 0 lost another of the 2 ranks" in line for line in trace)
    assert trace[-1].strip() == "-> look for the rank that failed first, and go on with --resume"
