"""Memory modes: what is measured, what is chosen, and that recomputation changes no gradient."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from reasoning_embedding import config
from reasoning_embedding.backbones import Pack, make_pack, make_packs
from reasoning_embedding.distributed import World, deal
from reasoning_embedding.errors import SetupError
from reasoning_embedding.losses import build_loss
from reasoning_embedding.training import contrastive_step
from reasoning_embedding.training import memory_mode as memory
from reasoning_embedding.training.activation_memory import Footprint, LiveBytes, measure
from reasoning_embedding.training.engines import Replicated
from reasoning_embedding.training.memory_mode import choose_memory_mode
from reasoning_embedding.training.optimizers import build_optimizer
from reasoning_embedding.training.recompute import recompute_activations
from tests.factories import random_batch
from tests.models import exact_norms, gradients, relative, tiny_embedder

LOSS = build_loss(config.InfoNCE(temperature=0.05))
#: The proportions of Qwen3-0.6B, at an eighth of its width.
D, A, K, F, LAYERS = 128, 256, 128, 384, 3
SHAPE: dict[str, Any] = {
    "hidden_size": D,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": F,
    "num_hidden_layers": LAYERS,
}
CPU = torch.device("cpu")
Kind = Literal[True, "selective", "offload"]
KINDS: list[Kind] = [True, "selective", "offload"]


@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_layers_give_the_same_gradient_with_dropout(kind: Kind) -> None:
    with exact_norms():
        found = []
        for recompute in (False, True):
            embedder = tiny_embedder(double=True, attention_dropout=0.3)
            embedder.train()
            if recompute:
                recompute_activations(embedder.model, kind)
            torch.manual_seed(7)
            contrastive_step(embedder, random_batch(), LOSS, World(), pack_tokens=40)
            found.append(gradients(embedder))
        assert relative(found[1], found[0]) < 1e-12


def _kept_values(kind: Kind | None, *, autocast: bool = False) -> float:
    """Values (of 4 bytes, or 2 under autocast) that a forward keeps a token and layer."""
    embedder = tiny_embedder(**SHAPE)
    embedder.train()
    if kind is not None:
        recompute_activations(embedder.model, kind)
    pack = _pack()

    def forward() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return embedder(pack)

    found = measure(forward, lambda out: out.backward(torch.ones_like(out)), CPU)
    return found.kept / len(pack.input_ids) / LAYERS / (2 if autocast else 4)


def _pack() -> Pack:
    rng = np.random.default_rng(0)
    return make_pack([rng.integers(3, 90, n) for n in (100, 100, 60, 60, 60, 33, 20)], [0] * 7)


def test_selective_recomputation_keeps_products_alone() -> None:
    everything, selective, layers = (_kept_values(kind) for kind in (None, "selective", True))
    ends = 2 * D  # embeddings and the last norm, over the layers
    assert selective == pytest.approx(3 * D + 2 * A + 2 * K + 2 * F, abs=ends)
    assert layers == pytest.approx(D, abs=ends)
    assert everything > 2 * selective
    assert _kept_values(None, autocast=True) > 2.4 * _kept_values("selective", autocast=True)


def test_offloaded_inputs_of_layers_pass_through_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[tuple[int, ...]] = []
    hooks = torch.autograd.graph.saved_tensors_hooks

    class Spy(hooks):
        def __init__(self, pin_memory: bool = False) -> None:
            super().__init__(
                lambda tensor: (moved.append(tuple(tensor.shape)), tensor)[1], lambda tensor: tensor
            )

    monkeypatch.setattr(torch.autograd.graph, "save_on_cpu", Spy)
    embedder, pack = tiny_embedder(**SHAPE), _pack()
    embedder.train()
    recompute_activations(embedder.model, "offload")
    embedder(pack).sum().backward()
    inputs = [shape for shape in moved if shape == (1, len(pack.input_ids), D)]
    assert len(inputs) >= LAYERS
    parameters = {tuple(p.shape) for p in embedder.parameters() if p.ndim == 2}
    assert not parameters & set(moved), "weights stay where they are"
    moved.clear()
    with torch.no_grad():
        embedder(pack)
    assert not moved


def test_live_bytes_follow_storages_and_not_views() -> None:
    with LiveBytes() as live:
        a = torch.zeros(100)
        views = [a[:50], a.view(10, 10), a.t()]
        assert live.now == 400
        del a
        assert live.now == 400
        del views
        assert live.now == 0
        b = torch.zeros(10)
        b += 1
        assert live.now == 40
        assert live.peak >= 400


def test_what_a_chain_of_products_keeps_is_counted_exactly() -> None:
    layers = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(4)))
    x = torch.randn(32, 64)
    found = measure(lambda: layers(x), lambda out: out.backward(torch.ones_like(out)), CPU)
    assert found.kept == 4 * 32 * 64 * 4  # three inputs and the output
    assert found.working == 0  # backward frees an activation for each gradient it makes


def test_working_memory_is_that_of_one_layer_made_again() -> None:
    embedder, pack = tiny_embedder(**SHAPE), _pack()
    embedder.train()
    recompute_activations(embedder.model, True)
    found = measure(lambda: embedder(pack), lambda out: out.backward(torch.ones_like(out)), CPU)
    layer = _kept_values(None) * len(pack.input_ids) * 4
    assert 0.7 * layer < found.working < 2 * layer


def _plan(monkeypatch: pytest.MonkeyPatch, free: int, **training: Any) -> memory.MemoryMode:
    embedder = tiny_embedder()
    embedder.train()
    monkeypatch.setattr(memory, "device_memory", lambda world: (free, 10_000_000))
    monkeypatch.setattr(memory, "at_most", lambda extra: contextlib.nullcontext())  # a few KiB tell nothing
    settings = config.Training(pack_tokens=40, **training)
    engine = Replicated(embedder, World(), lambda module: build_optimizer(module, settings))
    plan = choose_memory_mode(settings, engine, [random_batch(seed=s) for s in range(3)], None)
    assert all(parameter.grad is None for parameter in embedder.parameters())
    return plan


def test_auto_chooses_by_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    plenty = _plan(monkeypatch, 1 << 30)
    assert plenty.mode == "store"
    assert plenty.bytes_per_token is not None
    to_come = sum(p.numel() for p in tiny_embedder().parameters()) * (4 + 8)  # gradients, AdamW's moments
    most = max(int(random_batch(seed=s).lengths.sum()) for s in range(3))
    assert plenty.store_tokens is not None
    assert plenty.store_tokens >= most
    half = to_come + int(plenty.bytes_per_token * (most / 2 + 20) / 0.9)
    some = _plan(monkeypatch, half)
    assert some.mode == "hybrid"
    assert 0 < (some.store_tokens or 0) < most
    assert "one pack" not in some.reason
    needed = _needed()
    none = _plan(monkeypatch, to_come + needed)
    assert (none.mode, none.store_tokens) == ("replay", 0)
    assert "less than one pack of 38: the step may run out" in none.reason
    for plan in (plenty, some, none):
        assert "KiB a token" in plan.reason
    with pytest.raises(
        SetupError, match=r"takes .* MiB; beside weights, gradients and optimizer state"
    ) as caught:
        _plan(monkeypatch, to_come + needed - 1)
    assert caught.value.where == "the memory of cpu"
    assert "training.activation_checkpointing=selective" in (caught.value.todo or "")
    assert "training.memory" not in (caught.value.todo or ""), "no mode needs less than auto found"


def _needed() -> int:
    """Bytes of one pack, forward and backward."""
    embedder = tiny_embedder().train()
    batch = random_batch()
    pack = make_packs(batch.texts, batch.prompt_lengths, 40)[0][0]
    found = measure(lambda: embedder(pack), lambda out: out.backward(torch.zeros_like(out)), CPU)
    return found.kept + found.working


def test_a_budget_counts_what_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _plan(monkeypatch, 1 << 40, memory_gib=1).mode == "store"
    with pytest.raises(SetupError) as caught:
        _plan(monkeypatch, 1 << 40, memory_gib=10_000_000 / 2**30)
    assert caught.value.where == "training.memory_gib"
    with pytest.raises(SetupError):
        _plan(monkeypatch, 0, memory_gib=1)


def test_the_probe_is_a_pack_that_a_rank_will_run(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = random_batch(24)
    probed: list[int] = []

    class Watched(Replicated):
        def forward(self, pack: Pack) -> torch.Tensor:
            probed.append(len(pack.input_ids))
            return super().forward(pack)

    monkeypatch.setattr(memory, "max_over_ranks", lambda value, world: value)  # the others are not there
    settings = config.Training(pack_tokens=100_000)
    engine = Watched(tiny_embedder(), World(), lambda module: build_optimizer(module, settings))
    for ranks in (1, 4):
        engine.world = World(rank=ranks - 1, size=ranks)
        choose_memory_mode(settings, engine, [batch], None)
    assert probed == [batch.lengths.sum(), max(batch.lengths[part].sum() for part in deal(batch.lengths, 4))]


def test_tokens_to_store_below_a_pack_are_said_to_keep_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "none is kept" in _plan(monkeypatch, 0, store_tokens=20).reason
    assert "none is kept" not in _plan(monkeypatch, 0, store_tokens=50).reason


def test_recipes_are_taken_at_their_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise AssertionError("nothing is to be measured")

    monkeypatch.setattr(memory, "measure", fail)
    for training, wanted in (
        ({"memory": "store"}, ("store", None)),
        ({"memory": "replay"}, ("replay", 0)),
        ({"memory": "hybrid", "store_tokens": 50}, ("hybrid", 50)),
        ({"store_tokens": 50}, ("hybrid", 50)),
        ({"store_tokens": 0}, ("replay", 0)),
        ({"activation_checkpointing": True}, ("store", None)),
    ):
        plan = _plan(monkeypatch, 0, **training)
        assert (plan.mode, plan.store_tokens) == wanted, training


def test_a_pack_beyond_the_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(memory, "measure", fail)
    with pytest.raises(SetupError, match="does not fit"):
        _plan(monkeypatch, 1 << 30)


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only Linux limits what a process allocates"
)
def test_a_probe_beyond_the_limit_is_refused_before_the_kernel_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "device_memory", lambda world: (256 << 20, 0))

    def probe(forward: object, backward: object, device: object) -> Footprint:
        for wanted in (64 << 20, 1 << 30):
            torch.ones(wanted // 4)
        raise AssertionError("more was allocated than is free")

    monkeypatch.setattr(memory, "measure", probe)
    settings = config.Training(pack_tokens=40)
    engine = Replicated(tiny_embedder(), World(), lambda module: build_optimizer(module, settings))
    with pytest.raises(SetupError, match="a pack of 38 tokens does not fit in the memory of cpu"):
        choose_memory_mode(settings, engine, [random_batch()], None)
    assert len(torch.ones(1 << 28)) == 1 << 28, "the control: the limit ends with the probe"


def test_the_machines_memory_is_read() -> None:
    free, used = memory.device_memory(World())
    assert 0 < free <= psutil.virtual_memory().total
    assert used > 1 << 20


@pytest.mark.parametrize(
    ("training", "key"),
    [
        ({"memory": "hybrid"}, "memory"),
        ({"memory": "hybrid", "store_tokens": 0}, "memory"),
        ({"memory": "store", "store_tokens": 9}, "store_tokens"),
        ({"memory": "replay", "store_tokens": 9}, "store_tokens"),
        ({"memory": "replay", "memory_gib": 9}, "memory_gib"),
        ({"store_tokens": 9, "memory_gib": 9}, "memory_gib"),
        ({"activation_checkpointing": True, "memory": "replay"}, "memory"),
        ({"activation_checkpointing": "offload", "store_tokens": 9}, "store_tokens"),
        ({"epochs": 1, "steps": 1}, "steps"),
    ],
)
def test_contradictions_are_refused(training: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config.Training(**training)
    [error] = caught.value.errors()
    assert error["type"] == "conflict"
    assert error["ctx"]["path"] == (key,)


def test_selective_recomputation_goes_with_hybrid() -> None:
    chosen = config.Training(activation_checkpointing="selective", store_tokens=9)
    assert chosen.store_tokens == 9


def test_a_gpus_memory_counts_what_its_allocator_holds_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60, 80))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 9)
    assert memory.device_memory(World(device=torch.device("cuda"))) == (64, 5)


def test_a_pack_on_a_gpu_is_measured_by_its_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    allocated = iter([100, 160, 130])  # weights; activations too; weights and gradients
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: next(allocated))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 230)
    found = measure(lambda: torch.zeros(()), lambda output: None, torch.device("cuda"))
    assert found == Footprint(kept=60, working=40)


def test_states_of_offloaded_shards_take_no_room_on_the_device() -> None:
    embedder = tiny_embedder()
    engine = Replicated(embedder, World(), lambda model: torch.optim.AdamW(model.parameters()))
    assert engine.state_elements() == sum(parameter.numel() for parameter in embedder.parameters())
    engine.world = World(device=torch.device("cuda"))
    assert engine.state_elements() == 0
