"""What only a GPU can show: the fused variable-length kernel beside its slow twin. Skipped, counted, elsewhere."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.backbones import check_attention, compile_layers, make_pack
from reasoning_embedding.backbones.attention import packed_attention
from reasoning_embedding.distributed import World
from reasoning_embedding.losses import build_loss
from reasoning_embedding.training import contrastive_step
from reasoning_embedding.training.activation_memory import measure
from reasoning_embedding.training.recompute import recompute_activations
from reasoning_embedding.training.timers import Timers
from tests.factories import random_batch
from tests.models import gradients, relative, tiny_decoder, tiny_embedder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 3])
def test_the_fused_kernel_equals_text_by_text_attention(causal: bool, window: int | None) -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([70, 12, 12, 1, 33])
    boundaries = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to("cuda", torch.int32)
    shapes = [(1, heads, int(lengths.sum()), 64) for heads in (4, 2, 2)]
    drawn = [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for shape in shapes]
    upstream = torch.randn(1, shapes[0][2], 4, 64, device="cuda", dtype=torch.bfloat16)
    layer: Any = SimpleNamespace(config=SimpleNamespace(is_causal=causal))
    found = []
    for dtype in (torch.bfloat16, torch.float32):  # float32 is attended text by text
        tensors = [tensor.to(dtype).requires_grad_() for tensor in drawn]
        out, _ = packed_attention(
            layer, *tensors, None, sliding_window=window, cu_seq_lens_q=boundaries, max_length_q=70
        )
        found.append([out, *torch.autograd.grad(out, tensors, upstream.to(dtype))])
    for fused, slow in zip(*found, strict=True):
        assert relative(fused.float(), slow) < 2e-2


def test_the_contract_holds_on_the_device() -> None:
    found = check_attention(tiny_decoder().cuda(), where="qwen3")
    assert found.least_reach > 1e-3


def test_texts_do_not_leak_under_the_fused_kernel() -> None:
    model = tiny_decoder(head_dim=64).cuda().bfloat16()
    batch = random_batch()
    whole = model(**make_pack(batch.texts, batch.prompt_lengths).to("cuda").model_inputs()).last_hidden_state[
        0
    ]
    alone = model(
        **make_pack(batch.texts[:1], batch.prompt_lengths[:1]).to("cuda").model_inputs()
    ).last_hidden_state[0]
    assert relative(whole[: len(alone)].float(), alone.float()) < 2e-2


def test_the_step_on_the_device_equals_the_cpu() -> None:
    batch, loss = random_batch(), build_loss(config.InfoNCE(temperature=0.05))
    cpu, gpu = tiny_embedder(head_dim=64), tiny_embedder(head_dim=64).cuda()
    expected = contrastive_step(cpu, batch, loss, World())
    world = World(device=torch.device("cuda"))
    exact = contrastive_step(gpu, batch, loss, world)
    assert exact.loss == pytest.approx(expected.loss, rel=1e-4)
    assert relative(gradients(gpu).cpu(), gradients(cpu)) < 1e-3
    gpu.zero_grad()
    contrastive_step(gpu, batch, loss, world, autocast=torch.bfloat16)  # through the fused kernel
    assert relative(gradients(gpu).cpu(), gradients(cpu)) < 0.1


def test_compiled_streams_give_the_gradient_of_plain_packs() -> None:
    batch, loss = random_batch(24, longest=40), build_loss(config.InfoNCE(temperature=0.05))
    world = World(device=torch.device("cuda"))
    plain, compiled = tiny_embedder(head_dim=64), tiny_embedder(head_dim=64).cuda()
    contrastive_step(plain, batch, loss, World(), pack_tokens=256)
    compile_layers(compiled.model)
    output = contrastive_step(compiled, batch, loss, world, pack_tokens=256)
    assert output.computed_tokens >= output.tokens
    assert relative(gradients(compiled).cpu(), gradients(plain)) < 1e-3
    compiled.zero_grad()
    contrastive_step(compiled, batch, loss, world, pack_tokens=256, autocast=torch.bfloat16)
    assert relative(gradients(compiled).cpu(), gradients(plain)) < 0.1


@pytest.mark.parametrize("kind", [True, "selective", "offload"])
def test_recomputation_keeps_less_and_changes_no_gradient(
    kind: Literal[True, "selective", "offload"],
) -> None:
    batch, loss = random_batch(24, longest=40), build_loss(config.InfoNCE(temperature=0.05))
    device = torch.device("cuda")
    pack = make_pack(batch.texts, batch.prompt_lengths).to(device)
    found, kept = [], []
    for recompute in (False, True):
        embedder = tiny_embedder(head_dim=64, num_hidden_layers=6).cuda().train()
        if recompute:
            recompute_activations(embedder.model, kind)
        contrastive_step(embedder, batch, loss, World(device=device), autocast=torch.bfloat16)
        found.append(gradients(embedder))
        kept.append(measure(partial(embedder, pack), lambda out: out.backward(out.detach()), device).kept)
    assert relative(found[1], found[0]) < 1e-2
    assert kept[1] < 0.7 * kept[0]


def test_phases_are_timed_on_the_stream() -> None:
    timers = Timers(torch.device("cuda"))
    matrix = torch.randn(4096, 4096, device="cuda")
    with timers.phase("forward"):
        for _ in range(20):
            matrix = matrix @ matrix / 64
    times = timers.take()
    assert times["forward"] > times["other"]
