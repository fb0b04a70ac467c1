"""Before speed, truth: the step's loss and gradient against a padded forward and cross-entropy in float64."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder, fuse_layers
from reasoning_embedding.checkpoints.embedder import load_embedder
from reasoning_embedding.distributed import World
from reasoning_embedding.losses import build_loss

from .bench_train_data import Triple
from .bench_train_sides import TEMPERATURE, make_bag_of, tokenize_rows
from .step import contrastive_step


def worst_difference(checkpoint: Path, rows: Sequence[Triple]) -> float:
    """Return the largest relative difference of loss or gradient over the memory modes.

    Parameters
    ----------
    checkpoint : Path
        A Qwen3 embedder.
    rows : sequence of Triple
        The batch; its texts are shortened to lengths far apart, as float64 is slow.

    Notes
    -----
    The oracle is transformers' own model under padded ``sdpa`` attention with a mask, a masked mean, and
    ``cross_entropy`` over all documents: nothing of it is shared with the step. Both compute in float64,
    for which transformers' RMSNorm, which rounds to float32, is replaced on both sides.
    """
    rows = [
        (query[: 20 + 10 * place], positive[: 240 - 50 * place], negative[: 60 + 20 * place])
        for place, (query, positive, negative) in enumerate(rows[:4])
    ]
    with _exact_norms():
        loss, gradient = _padded(checkpoint, rows)
        embedder = load_embedder(checkpoint).double()
        fuse_layers(embedder.model, torch.float64)  # as on a CPU; elsewhere the stock layers are what runs
        store = tokenize_rows(embedder, rows)
        bag = make_bag_of(store, range(len(rows)))
        half = int(bag.lengths.sum()) // 2
        differences = []
        for store_tokens in (None, half, 0):  # store, hybrid, replay
            embedder.zero_grad()
            output = contrastive_step(
                embedder,
                bag,
                build_loss(config.InfoNCE(temperature=TEMPERATURE)),
                World(),
                pack_tokens=half // 2,
                store_tokens=store_tokens,
            )
            error = (_gradient(embedder) - gradient).norm() / gradient.norm()
            differences += [float(error), abs(output.loss - loss) / loss]
    return max(differences)


def _padded(checkpoint: Path, rows: Sequence[Triple]) -> tuple[float, Tensor]:
    embedder = load_embedder(checkpoint).double()
    embedder.model.set_attn_implementation("sdpa")
    columns = [_embed_padded(embedder, [row[column] for row in rows]) for column in range(3)]
    queries, documents = columns[0], torch.cat(columns[1:])
    loss = F.cross_entropy(queries @ documents.T / TEMPERATURE, torch.arange(len(rows)))
    loss.backward()
    return float(loss.detach()), _gradient(embedder)


def _embed_padded(embedder: Embedder, texts: list[str]) -> Tensor:
    inputs = embedder.tokenizer(texts, padding=True, return_tensors="pt")
    states = embedder.model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    return F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)


def _gradient(embedder: Embedder) -> Tensor:
    return torch.cat(
        [parameter.grad.reshape(-1) for parameter in embedder.parameters() if parameter.grad is not None]
    )


@contextlib.contextmanager
def _exact_norms() -> Generator[None]:
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    def forward(norm: Any, states: Tensor) -> Tensor:
        variance = states.pow(2).mean(-1, keepdim=True)
        return norm.weight * (states * torch.rsqrt(variance + norm.variance_epsilon))

    with mock.patch.object(Qwen3RMSNorm, "forward", forward):
        yield
