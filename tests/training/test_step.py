"""One step against padded transformers and cross-entropy, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder
from reasoning_embedding.data.batch import Bag, make_bag
from reasoning_embedding.data.plan import Batch
from reasoning_embedding.data.tokens import TokenStore
from reasoning_embedding.distributed import World
from reasoning_embedding.losses import build_loss
from reasoning_embedding.training import contrastive_step
from tests.models import exact_norms, gradients, random_bag, relative, tiny_embedder
from tests.padded_oracle import TEMPERATURE, padded_loss

LOSS = build_loss(config.InfoNCE(temperature=TEMPERATURE))


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize("pack_tokens", [1, 40, 10_000])
def test_equals_one_padded_forward(family: str, pack_tokens: int) -> None:
    with exact_norms():
        embedder, bag = tiny_embedder(family, double=True), random_bag()
        expected = padded_loss(embedder, bag)
        expected.backward()
        wanted = gradients(embedder)
        embedder.zero_grad()
        output = contrastive_step(embedder, bag, LOSS, World(), pack_tokens=pack_tokens)
        assert output.loss == pytest.approx(expected.item(), rel=1e-12)
        assert relative(gradients(embedder), wanted) < 1e-12

        embedder.zero_grad()
        padded_loss(embedder, bag, causal=True).backward()
        assert relative(gradients(embedder), wanted) > 1e-2  # the control: causal attention differs


@pytest.mark.parametrize("store_tokens", [0, 50, 10_000])
def test_what_is_not_stored_is_replayed_with_the_same_dropout(store_tokens: int) -> None:
    with exact_norms():
        embedder, bag = tiny_embedder(double=True, attention_dropout=0.3), random_bag()
        embedder.train()
        found = []
        for budget in (None, store_tokens):
            torch.manual_seed(7)
            output = contrastive_step(embedder, bag, LOSS, World(), pack_tokens=40, store_tokens=budget)
            found.append((output.loss, gradients(embedder), torch.rand(1)))
            embedder.zero_grad()
        assert found[0][0] == found[1][0]
        assert relative(found[1][1], found[0][1]) < 1e-14
        assert found[0][2] == found[1][2]  # what is drawn afterwards does not depend on the memory mode
        torch.manual_seed(8)
        assert (
            contrastive_step(embedder, bag, LOSS, World(), pack_tokens=40).loss != found[0][0]
        )  # dropout is on


def test_nothing_is_stored_when_nothing_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder, bag = tiny_embedder(), random_bag()
    forward, seen = Embedder.forward, []

    def watch(self: Embedder, pack: object) -> torch.Tensor:
        seen.append(torch.is_grad_enabled())
        return forward(self, pack)  # type: ignore[arg-type]

    monkeypatch.setattr(Embedder, "forward", watch)
    contrastive_step(embedder, bag, LOSS, World(), pack_tokens=40, store_tokens=0)
    first = seen.index(True)
    assert not any(seen[:first])
    assert len(seen) == 2 * first


@pytest.mark.parametrize("tile_rows", [1, 4])
def test_the_loss_in_tiles_is_the_loss(tile_rows: int) -> None:
    with exact_norms():
        embedder, bag = tiny_embedder(double=True), random_bag()
        whole = contrastive_step(embedder, bag, LOSS, World())
        wanted = gradients(embedder)
        embedder.zero_grad()
        tiles = build_loss(config.InfoNCE(temperature=0.05, tile_rows=tile_rows))
        tiled = contrastive_step(embedder, bag, tiles, World())
        assert tiled.loss == pytest.approx(whole.loss, rel=1e-13)
        assert tiled.accuracy == whole.accuracy
        assert relative(gradients(embedder), wanted) < 1e-13


def test_activation_checkpointing_changes_nothing() -> None:
    with exact_norms():
        embedder, bag = tiny_embedder(double=True), random_bag()
        embedder.train()
        contrastive_step(embedder, bag, LOSS, World())
        wanted = gradients(embedder)
        embedder.zero_grad()
        embedder.model.activation_checkpointing_enable()
        contrastive_step(embedder, bag, LOSS, World())
        assert relative(gradients(embedder), wanted) < 1e-12


def test_the_order_of_texts_changes_nothing() -> None:
    embedder, bag = tiny_embedder(double=True), random_bag()
    first = contrastive_step(embedder, bag, LOSS, World())
    wanted = gradients(embedder)
    embedder.zero_grad()
    order = np.random.default_rng(1).permutation(len(bag.texts))
    place = np.argsort(order)
    shuffled = Bag(
        [bag.texts[i] for i in order], bag.prompt_lengths[order], place[bag.query], place[bag.document]
    )
    second = contrastive_step(embedder, shuffled, LOSS, World())
    assert second.loss == pytest.approx(first.loss, rel=1e-6)
    assert relative(gradients(embedder), wanted) < 1e-5


def test_a_text_in_two_slots_equals_two_copies() -> None:
    with exact_norms():
        embedder = tiny_embedder(double=True)
        bag = random_bag()
        twice = bag.document[-1]
        copies = Bag(
            [*bag.texts, bag.texts[twice]],
            np.append(bag.prompt_lengths, bag.prompt_lengths[twice]),
            bag.query,
            np.append(bag.document[:-1], len(bag.texts)),
        )
        contrastive_step(embedder, bag, LOSS, World())
        wanted = gradients(embedder)
        embedder.zero_grad()
        contrastive_step(embedder, copies, LOSS, World())
        assert relative(gradients(embedder), wanted) < 1e-12


def test_bf16_autocast_stays_near_fp32() -> None:
    embedder, bag = tiny_embedder(), random_bag()
    exact = contrastive_step(embedder, bag, LOSS, World())
    wanted = gradients(embedder)
    embedder.zero_grad()
    rounded = contrastive_step(embedder, bag, LOSS, World(), autocast=torch.bfloat16)
    assert rounded.loss == pytest.approx(exact.loss, rel=2e-2)
    assert 1e-6 < relative(gradients(embedder), wanted) < 0.1
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in embedder.parameters())


def test_bags_hold_each_text_once() -> None:
    store = TokenStore(
        np.arange(10, dtype=np.int32), np.array([0, 2, 5, 7, 10]), np.array([1, 0, 0, 0], dtype=np.int32)
    )
    batch = Batch(
        query=np.array([0, 3], dtype=np.int32),
        positive=np.array([2, 2], dtype=np.int32),
        negative=np.array([3], dtype=np.int32),
        negative_owner=np.array([0], dtype=np.int32),
        rows=np.array([0, 1]),
        source="s",
    )
    bag = make_bag(batch, store)
    assert [text.tolist() for text in bag.texts] == [[0, 1], [5, 6], [7, 8, 9]]
    assert bag.query.tolist() == [0, 2]
    assert bag.document.tolist() == [1, 1, 2]
    assert bag.prompt_lengths.tolist() == [1, 0, 0]
