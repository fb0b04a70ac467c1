"""One step against padded transformers and cross-entropy, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.distributed import World
from reasoning_embedding.losses import build_loss
from reasoning_embedding.training import contrastive_step
from tests.factories import random_batch
from tests.models import exact_norms, gradients, relative, tiny_embedder
from tests.padded_oracle import TEMPERATURE, padded_loss

LOSS = build_loss(config.InfoNCE(temperature=TEMPERATURE, mask_same_text=False))


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize("pack_tokens", [1, 40, 10_000])
def test_equals_one_padded_forward(family: str, pack_tokens: int) -> None:
    with exact_norms():
        embedder, batch = tiny_embedder(family, double=True), random_batch()
        expected = padded_loss(embedder, batch)
        expected.backward()
        wanted = gradients(embedder)
        embedder.zero_grad()
        output = contrastive_step(embedder, batch, LOSS, World(), pack_tokens=pack_tokens)
        assert output.loss == pytest.approx(expected.item(), rel=1e-12)
        assert relative(gradients(embedder), wanted) < 1e-12

        embedder.zero_grad()
        padded_loss(embedder, batch, causal=True).backward()
        assert relative(gradients(embedder), wanted) > 1e-2  # the control: causal attention differs


@pytest.mark.parametrize("store_tokens", [0, 50, 60, 10_000])
def test_what_is_not_stored_is_replayed_with_the_same_dropout(store_tokens: int) -> None:
    with exact_norms():
        embedder, batch = tiny_embedder(double=True, attention_dropout=0.3), random_batch()
        embedder.train()
        found = []
        for budget in (None, store_tokens):
            torch.manual_seed(7)
            output = contrastive_step(embedder, batch, LOSS, World(), pack_tokens=40, store_tokens=budget)
            found.append((output.loss, gradients(embedder), torch.rand(1)))
            embedder.zero_grad()
        assert found[0][0] == found[1][0]
        assert torch.equal(found[1][1], found[0][1])
        assert found[0][2] == found[1][2]  # what is drawn afterwards does not depend on the memory mode
        torch.manual_seed(8)
        assert (
            contrastive_step(embedder, batch, LOSS, World(), pack_tokens=40).loss != found[0][0]
        )  # dropout is on


def test_nothing_is_stored_when_nothing_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder, batch = tiny_embedder(), random_batch()
    forward, seen = Embedder.forward, []

    def watch(self: Embedder, pack: object) -> torch.Tensor:
        seen.append(torch.is_grad_enabled())
        return forward(self, pack)  # type: ignore[arg-type]

    monkeypatch.setattr(Embedder, "forward", watch)
    contrastive_step(embedder, batch, LOSS, World(), pack_tokens=40, store_tokens=0)
    first = seen.index(True)
    assert not any(seen[:first])
    assert len(seen) == 2 * first


@pytest.mark.parametrize("tile_rows", [1, 4])
def test_the_loss_in_tiles_is_the_loss(tile_rows: int) -> None:
    with exact_norms():
        embedder, batch = tiny_embedder(double=True), random_batch()
        whole = contrastive_step(embedder, batch, LOSS, World())
        wanted = gradients(embedder)
        embedder.zero_grad()
        tiles = build_loss(config.InfoNCE(temperature=0.05, tile_rows=tile_rows, mask_same_text=False))
        tiled = contrastive_step(embedder, batch, tiles, World())
        assert tiled.loss == pytest.approx(whole.loss, rel=1e-13)
        assert tiled.accuracy == whole.accuracy
        assert relative(gradients(embedder), wanted) < 1e-13


def test_the_order_of_texts_changes_nothing() -> None:
    embedder, batch = tiny_embedder(double=True), random_batch()
    first = contrastive_step(embedder, batch, LOSS, World())
    wanted = gradients(embedder)
    embedder.zero_grad()
    order = np.random.default_rng(1).permutation(len(batch.texts))
    place = np.argsort(order)
    shuffled = Batch.from_arrays(
        [batch.texts[i] for i in order],
        batch.prompt_lengths[order],
        place[batch.query],
        place[batch.document],
    )
    second = contrastive_step(embedder, shuffled, LOSS, World())
    assert second.loss == pytest.approx(first.loss, rel=1e-6)
    assert relative(gradients(embedder), wanted) < 1e-5


def test_a_text_in_two_slots_equals_two_copies() -> None:
    with exact_norms():
        embedder = tiny_embedder(double=True)
        batch = random_batch()
        twice = batch.document[-1]
        copies = Batch.from_arrays(
            [*batch.texts, batch.texts[twice]],
            np.append(batch.prompt_lengths, batch.prompt_lengths[twice]),
            batch.query,
            np.append(batch.document[:-1], len(batch.texts)),
        )
        contrastive_step(embedder, batch, LOSS, World())
        wanted = gradients(embedder)
        embedder.zero_grad()
        contrastive_step(embedder, copies, LOSS, World())
        assert relative(gradients(embedder), wanted) < 1e-12


def test_bf16_autocast_stays_near_fp32() -> None:
    embedder, batch = tiny_embedder(), random_batch()
    exact = contrastive_step(embedder, batch, LOSS, World())
    wanted = gradients(embedder)
    embedder.zero_grad()
    rounded = contrastive_step(embedder, batch, LOSS, World(), autocast=torch.bfloat16)
    assert rounded.loss == pytest.approx(exact.loss, rel=2e-2)
    assert 1e-6 < relative(gradients(embedder), wanted) < 0.1
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in embedder.parameters())
