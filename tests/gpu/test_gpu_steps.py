"""Whole steps on a GPU beside their slow twins: padded, uncompiled, on the CPU. Skipped, counted, elsewhere."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder, compile_layers, make_pack
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.distributed import World
from reasoning_embedding.hrsa.capture import draw_sample, read
from reasoning_embedding.losses import build_loss
from reasoning_embedding.training import contrastive_step
from reasoning_embedding.training.engines import Replicated
from reasoning_embedding.training.memory_mode import choose_memory_mode
from reasoning_embedding.training.optimizers import build_optimizer
from reasoning_embedding.training.recompute import recompute_activations
from tests.factories import random_batch
from tests.models import gradients, relative, tiny_embedder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DEVICE = torch.device("cuda")
WORLD = World(device=DEVICE)
LOSS = build_loss(config.InfoNCE(temperature=0.05))
#: Qwen3-0.6B but for its depth and its vocabulary.
QWEN3: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
}


def _padded(embedder: Embedder, batch: Batch) -> torch.Tensor:
    """Embed by transformers' own padded ``sdpa`` attention with a mask."""
    rows = [torch.from_numpy(text).long() for text in batch.texts]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(DEVICE)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(
        DEVICE
    )
    states = embedder.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
    pooled = mask.clone()
    for row, prompt in enumerate(batch.prompt_lengths):
        pooled[row, :prompt] = 0
    return F.normalize((states * pooled[..., None]).sum(1) / pooled.sum(1)[:, None], dim=-1)


@pytest.mark.parametrize(("dtype", "bound"), [(None, 1e-4), (torch.bfloat16, 3e-2)])
def test_packs_equal_padded_sdpa_forward_and_backward(dtype: torch.dtype | None, bound: float) -> None:
    batch = random_batch(16, longest=200)
    found = []
    for padded in (False, True):
        embedder = tiny_embedder(**QWEN3).to(DEVICE)
        if padded:
            embedder.model.set_attn_implementation("sdpa")
        with torch.autocast(DEVICE.type, dtype, enabled=dtype is not None):
            embeddings = (
                _padded(embedder, batch)
                if padded
                else embedder(make_pack(batch.texts, batch.prompt_lengths).to(DEVICE))
            )
        (embeddings @ embeddings.T).square().sum().backward()
        found.append((embeddings.detach(), gradients(embedder)))
    (packs, packs_gradient), (padded_rows, padded_gradient) = found
    assert relative(packs, padded_rows) < bound
    assert relative(packs_gradient, padded_gradient) < 3 * bound


class Kernels(TorchDispatchMode):
    """Writes down which variable-length kernels are called, and in which dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, torch.dtype]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "varlen_attn" in func.name():
            self.found.append((func.name().rpartition("::")[2], args[0].dtype))
        return func(*args, **(kwargs or {}))


def test_a_bf16_step_goes_through_the_fused_kernel() -> None:
    embedder = tiny_embedder(head_dim=64).to(DEVICE)
    with Kernels() as kernels:
        contrastive_step(embedder, random_batch(), LOSS, WORLD, autocast=torch.bfloat16)
    forwards = [dtype for name, dtype in kernels.found if name == "_varlen_attn"]
    assert forwards == [torch.bfloat16] * 2


def test_a_pack_is_queued_without_waiting_for_the_device() -> None:
    embedder = tiny_embedder(head_dim=64).to(DEVICE)
    pack = make_pack(random_batch().texts, random_batch().prompt_lengths).to(DEVICE)
    with torch.autocast("cuda", torch.bfloat16):
        embedder(pack).sum().backward()  # what is loaded late
        once = gradients(embedder)
        torch.cuda.set_sync_debug_mode("error")  # from here on, waiting raises
        try:
            total = embedder(pack).sum()
            total.backward()
            with pytest.raises(RuntimeError, match="synchroniz"):
                total.item()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert relative(gradients(embedder), 2 * once) < 1e-2


@pytest.mark.parametrize("kind", [False, True, "selective", "offload"])
def test_compiled_layers_with_recomputation_give_the_plain_gradient(
    kind: Literal[False, True, "selective", "offload"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch._functorch.config.activation_memory_budget", 1.0)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    batch = random_batch(24, longest=40)
    plain, compiled = tiny_embedder(head_dim=64).to(DEVICE), tiny_embedder(head_dim=64).to(DEVICE).train()
    if kind and kind != "selective":
        recompute_activations(compiled.model, kind)
    compile_layers(compiled.model, selective=kind == "selective")
    for embedder in (plain, compiled):
        contrastive_step(embedder, batch, LOSS, WORLD, pack_tokens=256, autocast=torch.bfloat16)
    assert relative(gradients(compiled), gradients(plain)) < 5e-2
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 1


@pytest.mark.parametrize("store_tokens", [64, 0])
def test_what_a_gpu_draws_is_drawn_again_in_a_replay(store_tokens: int) -> None:
    batch = random_batch(12)
    found = []
    for kept in (None, store_tokens):
        embedder = tiny_embedder(head_dim=64, attention_dropout=0.3).to(DEVICE).train()
        torch.manual_seed(0)
        contrastive_step(embedder, batch, LOSS, WORLD, pack_tokens=64, store_tokens=kept)
        found.append(gradients(embedder))
    assert relative(found[1], found[0]) < 1e-5


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit", "muon"])
def test_an_optimizers_state_survives_saving(kind: str) -> None:
    if kind == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    recipe = config.Training.model_validate({"optimizer": {"kind": kind}})
    found = []
    for interrupted in (False, True):
        embedder = tiny_embedder(head_dim=64, hidden_size=128).to(DEVICE)
        engine = Replicated(embedder, WORLD, lambda model: build_optimizer(model, recipe), max_norm=1.0)
        for step in range(2):
            if interrupted and step:
                state = engine.optimizer_state()
                host = {
                    index: {name: value.cpu() for name, value in entry.items()}
                    for index, entry in state["state"].items()
                }
                engine = Replicated(
                    embedder, WORLD, lambda model: build_optimizer(model, recipe), max_norm=1.0
                )
                engine.load_optimizer_state({**state, "state": host})
            contrastive_step(embedder, random_batch(seed=step), LOSS, WORLD, engine=engine)
            engine.update(1e-3)
        found.append(torch.cat([parameter.detach().flatten() for parameter in embedder.parameters()]))
    assert relative(found[1], found[0]) < 1e-6


@pytest.mark.parametrize(("gib", "mode"), [(None, "store"), (0.0, "replay")])
def test_auto_measures_the_device(gib: float | None, mode: str) -> None:
    embedder = tiny_embedder(head_dim=64).to(DEVICE)
    recipe = config.Training(pack_tokens=64)
    if gib is not None:
        recipe = recipe.model_copy(update={"memory_gib": torch.cuda.memory_allocated() / 2**30})
    engine = Replicated(embedder, WORLD, lambda model: build_optimizer(model, recipe))
    plan = choose_memory_mode(recipe, engine, [random_batch(seed=seed) for seed in range(3)], torch.bfloat16)
    assert plan.mode == mode
    assert plan.bytes_per_token
    assert all(parameter.grad is None for parameter in embedder.parameters())


def test_states_read_on_the_device_are_those_of_the_cpu() -> None:
    ids = random_batch().texts
    sample = draw_sample([len(text) for text in ids], "all", 50, 0)
    model = tiny_embedder(head_dim=64).model
    [expected] = read([model], [ids], sample, pack_tokens=64)
    [found] = read([model.to(DEVICE)], [ids], sample, pack_tokens=64)
    for gpu, cpu in zip([*found.states, found.mean], [*expected.states, expected.mean], strict=True):
        np.testing.assert_allclose(gpu, cpu, rtol=1e-3, atol=1e-4)
