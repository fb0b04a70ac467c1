"""Compiled layers give the gradient of stock ones."""

from __future__ import annotations

from typing import Literal, cast

import numpy as np
import pytest
import torch
from torch import nn

from reasoning_embedding import config
from reasoning_embedding.backbones import (
    Embedder,
    Pack,
    compilation,
    compile_layers,
    decoder_layers,
    make_pack,
)
from reasoning_embedding.backbones.attention import packed_attention
from reasoning_embedding.distributed import World
from reasoning_embedding.losses import build_loss
from reasoning_embedding.training import contrastive_step
from reasoning_embedding.training.recompute import recompute_activations
from tests.factories import random_batch
from tests.models import gradients, relative, tiny_embedder

LOSS = build_loss(config.InfoNCE(temperature=0.05))


def test_every_layer_is_compiled_and_attention_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = tiny_embedder(num_hidden_layers=3)
    compiled: list[tuple[nn.Module, str]] = []
    opaque: list[object] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, backend: compiled.append((module, backend)))
    monkeypatch.setattr(torch.compiler, "disable", lambda function: opaque.append(function) or function)
    compilation._make_attention_opaque.cache_clear()
    compile_layers(embedder.model)
    compilation._make_attention_opaque.cache_clear()  # what it registered was not opaque
    assert compiled == [(layer, "inductor") for layer in decoder_layers(embedder.model)]
    assert opaque == [packed_attention]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_a_compiled_step_gives_the_same_gradient(backend: str) -> None:
    torch._dynamo.reset()
    stock, compiled = tiny_embedder(num_hidden_layers=3), tiny_embedder(num_hidden_layers=3)
    names = list(compiled.state_dict())
    compile_layers(compiled.model, backend=backend)
    assert list(compiled.state_dict()) == names
    for embedder in (stock, compiled):
        embedder.train()
        contrastive_step(embedder, random_batch(), LOSS, World(), pack_tokens=40, store_tokens=50)
    assert relative(gradients(compiled), gradients(stock)) < 1e-6
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] > 1, "layers were compiled"
    breaks = " ".join(counters["graph_break"])
    assert "packed_attention" in breaks, "around an attention that was not"
    assert len(counters["graph_break"]) == 1, f"and nothing else was left out: {breaks}"


@pytest.mark.slow
def test_streams_of_many_sizes_are_compiled_twice() -> None:
    torch._dynamo.reset()
    made: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> torch.fx.GraphModule:
        made.append(graph)
        return graph

    embedder = tiny_embedder(num_hidden_layers=3).train()
    compile_layers(embedder.model, backend=cast("str", backend))
    rng = np.random.default_rng(0)
    counts = []
    for tokens in (512, 512, 64, 448, 128, 320, 512):
        texts = [rng.integers(3, 90, n) for n in rng.integers(4, 30, tokens // 30)]
        pack = make_pack(texts, [0] * len(texts), pad_to=tokens)
        assert len(pack.input_ids) == tokens
        embedder(pack).sum().backward()
        counts.append(len(made))
    assert counts == [counts[0]] * 2 + [2 * counts[0]] * 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", [True, "offload"])
def test_checkpointed_layers_are_compiled_too(kind: Literal[True, "offload"]) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    stock, compiled = tiny_embedder(num_hidden_layers=3), tiny_embedder(num_hidden_layers=3)
    for embedder in (stock, compiled):
        recompute_activations(embedder.train().model, kind)
    compile_layers(compiled.model, backend="eager")
    for embedder in (stock, compiled):
        contrastive_step(embedder, random_batch(), LOSS, World(), pack_tokens=40)
    assert relative(gradients(compiled), gradients(stock)) < 1e-6
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 1
    pack = make_pack(random_batch().texts, random_batch().prompt_lengths)
    assert _kept(compiled, pack) < 0.5 * _kept(tiny_embedder(num_hidden_layers=3).train(), pack)


@pytest.mark.slow
def test_the_compiler_recomputes_what_selective_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._functorch.config.activation_memory_budget", 1.0)
    batch, kept, found = random_batch(24, longest=40), [], []
    pack = make_pack(batch.texts, batch.prompt_lengths)
    for selective in (False, True):
        torch._dynamo.reset()
        embedder = tiny_embedder(hidden_size=128, intermediate_size=512).train()
        compile_layers(embedder.model, selective=selective)
        kept.append(_kept(embedder, pack))
        embedder(pack)[:, 0].sum().backward()
        found.append(gradients(embedder))
    assert relative(found[1], found[0]) < 1e-5
    assert kept[1] < 0.7 * kept[0]


def _kept(embedder: Embedder, pack: Pack) -> int:
    """Bytes that a forward saves for its backward pass, parameters not counted; measuring runs compiled code."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in embedder.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        embedder(pack)
    return sum(storage.nbytes() for address, storage in saved.items() if address not in weights)
