"""Trained heads on sharding engines: whole on every rank, clipped, updated, saved and resumed with the rest."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.tensor import DTensor

from reasoning_embedding import config
from reasoning_embedding.backbones import Head, Readout, make_pack
from reasoning_embedding.distributed import World
from reasoning_embedding.distributed.harness import run_ranks
from tests.distributed.engine_cases import STORE, Case, build
from tests.models import exact_norms, relative, tiny_embedder

CASE = Case(
    "qwen3", "hybrid", readout=Readout("causal", "last", heads=(Head(32, 24, activation="tanh"), Head(24, 8)))
)
NORM = 0.05


def _trained(world: World, kind: str, case: Case, resume: dict[str, Any] | None) -> dict[str, Any]:
    """Three steps, the second shorter than its gradient; or the third alone, from what the second left."""
    with exact_norms():
        embedder = case.embedder()
        if resume is not None:
            embedder.load_state_dict(resume["weights"])
        engine = build(kind, embedder, world, max_norm=NORM)
        if resume is not None:
            engine.load_optimizer_state(resume["state"])
        norms, before = [], None
        for _ in range(3 if resume is None else 1):
            before = {
                "weights": _copy(engine.weights(everywhere=True)),
                "state": copy.deepcopy(engine.optimizer_state()),
            }
            case.step(engine, STORE[case.memory])
            norms.append(engine.update(1e-2))
        pack = make_pack(case.batch().texts, case.batch().prompt_lengths)
        with torch.no_grad():
            vectors = engine.full_embedder().eval()(pack)
        sharded = [name for name, p in engine.embedder.named_parameters() if isinstance(p, DTensor)]
        return {
            "weights": _copy(engine.weights(everywhere=True)),
            "state": engine.optimizer_state(),
            "norms": norms,
            "vectors": vectors,
            "before": before,
            "sharded": sharded,
        }


def _copy(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in weights.items()}


@pytest.mark.parametrize(
    ("kind", "lora"),
    [
        ("fsdp2", False),
        *(
            pytest.param(kind, lora, marks=pytest.mark.slow)
            for kind, lora in (("fsdp2", True), ("zero2", False), ("zero2", True), ("zero3", False))
        ),
    ],
)
def test_heads_are_trained_as_in_one_process(kind: str, lora: bool) -> None:
    case = replace(CASE, lora=lora)
    alone = _trained(World(), "replicated", case, None)
    assert min(alone["norms"]) > NORM  # clipped
    start = case.embedder().state_dict()
    for name, value in alone["weights"].items():
        if name.startswith("heads."):
            assert relative(value, start[name]) > 1e-3, name
    ranks = run_ranks(2, _trained, kind, case, None)
    # Adam divides by the gradient's own size: what DeepSpeed rounds to float32 grows where gradients are all but none.
    bound = {"fsdp2": 1e-9, "zero2": 1e-4, "zero3": 1e-3}[kind]
    for found in ranks:
        np.testing.assert_allclose(found["norms"], alone["norms"], rtol=bound)
        assert relative(found["vectors"], alone["vectors"]) < 10 * bound
        assert found["weights"].keys() == alone["weights"].keys()
        for name, value in alone["weights"].items():
            assert relative(found["weights"][name], value) < 10 * bound, name
        if kind == "fsdp2":
            assert found["sharded"]
            assert not any(name.startswith("heads.") for name in found["sharded"])

    # The state is that of one process, and either goes on from the other's.
    saved = ranks[0]["state"]
    assert saved["state"].keys() == alone["state"]["state"].keys()
    for index, entry in alone["state"]["state"].items():
        for moment, value in entry.items():
            assert saved["state"][index][moment].shape == value.shape
            if value.ndim:
                assert relative(saved["state"][index][moment], value) < 10 * bound
    crossed = _trained(World(), "replicated", case, ranks[0]["before"])
    back = run_ranks(2, _trained, kind, case, alone["before"])
    for name, value in alone["weights"].items():
        assert relative(crossed["weights"][name], value) < 10 * bound, name
        assert relative(back[0]["weights"][name], value) < 10 * bound, name


def test_heads_compute_in_float32_under_autocast() -> None:
    embedder = tiny_embedder(readout=Readout(heads=(Head(32, 8, activation="tanh"),)))
    pack = make_pack(CASE.batch().texts, CASE.batch().prompt_lengths)
    given: list[torch.Tensor] = []
    embedder.heads[0].linear.register_forward_hook(
        lambda module, inputs, output: given.extend([*inputs, output])
    )  # type: ignore[union-attr, operator]
    with torch.autocast("cpu", torch.bfloat16):
        vectors = embedder(pack)
        twin = torch.nn.functional.linear(given[0], embedder.heads[0].linear.weight)  # type: ignore[union-attr, arg-type]
    assert {given[0].dtype, given[1].dtype, vectors.dtype} == {torch.float32}
    assert twin.dtype == torch.bfloat16  # what autocast would have made of it


def test_groups_of_an_optimizer_without_heads_are_what_they_were() -> None:
    from reasoning_embedding.training.optimizers import build_optimizer

    training = config.Training(weight_decay=0.1)
    plain = build_optimizer(tiny_embedder(), training).param_groups
    assert [group["weight_decay"] for group in plain] == [0.1, 0.0]
    headed = build_optimizer(tiny_embedder(readout=CASE.readout), training).param_groups
    assert [group["weight_decay"] for group in headed] == [0.1, 0.0, 0.1, 0.0]
    assert [len(group["params"]) for group in headed[2:]] == [2, 2]
