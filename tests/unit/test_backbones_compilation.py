"""Compiled layers give the gradient of stock ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reasoning_embedding import config
from reasoning_embedding.backbones import compilation, compile_layers, decoder_layers
from reasoning_embedding.backbones.attention import packed_attention
from reasoning_embedding.distributed import World
from reasoning_embedding.losses import build_loss
from reasoning_embedding.training import contrastive_step
from tests.models import gradients, random_bag, relative, tiny_embedder

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
        contrastive_step(embedder, random_bag(), LOSS, World(), pack_tokens=40, store_tokens=50)
    assert relative(gradients(compiled), gradients(stock)) < 1e-6
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] > 1, "layers were compiled"
    breaks = " ".join(counters["graph_break"])
    assert "packed_attention" in breaks, "around an attention that was not"
    assert len(counters["graph_break"]) == 1, f"and nothing else was left out: {breaks}"
