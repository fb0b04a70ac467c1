"""Before speed, truth: the step's loss and gradient against a padded forward and cross-entropy in float64."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.train.texts import Triple
from benchmarks.train.trainers import TEMPERATURE, batch_of, tokenize_rows
from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder, fuse_layers
from reasoning_embedding.checkpoints.embedder import load_embedder
from reasoning_embedding.distributed import World
from reasoning_embedding.distributed.harness import run_ranks
from reasoning_embedding.losses import build_loss
from reasoning_embedding.training.step import contrastive_step

#: Numbers of ranks that are checked where ranks can be forked: not from a process that has used a GPU.
RANKS = (1, 2, 3, 4)
#: Largest relative difference of loss or gradient to the oracle at which a ratio of speeds counts.
EXACT = 1e-10
_DROPOUT = 0.1


def worst_difference(checkpoint: Path, rows: Sequence[Triple], *, ranks: Sequence[int] = RANKS) -> float:
    """Return the largest relative difference of loss or gradient over memory modes and numbers of ranks.

    Parameters
    ----------
    checkpoint : Path
        A Qwen3 embedder.
    rows : sequence of Triple
        The batch; its texts are shortened to lengths far apart, as float64 is slow.
    ranks : sequence of int
        Numbers of ranks, connected by gloo.

    Notes
    -----
    The oracle is transformers' own model under padded ``sdpa`` attention with a mask, a masked mean, and
    ``cross_entropy`` over all documents: nothing of it is shared with the step. Both compute in float64,
    for which transformers' RMSNorm, which rounds to float32, is replaced on both sides. Dropout, which is ours,
    is held to one process that keeps the batch in one pack.
    """
    rows = [
        (query[: 20 + 10 * place], positive[: 240 - 50 * place], negative[: 60 + 20 * place])
        for place, (query, positive, negative) in enumerate(rows[:4])
    ]
    with _exact_norms():
        plain = _padded(checkpoint, rows)
        dropped = _step(World(), checkpoint, rows, packs=1, stored=1.0, dropout=_DROPOUT)
        worst = partial(
            _worst_of_modes, checkpoint=checkpoint, rows=rows, oracles={0.0: plain, _DROPOUT: dropped}
        )
        found = [run_ranks(size, worst) if size > 1 else [worst(World())] for size in ranks]
    return max(itertools.chain.from_iterable(found))


def exact_record(difference: float, ranks: Sequence[int]) -> dict[str, Any]:
    """Return the benchmark's record of what :func:`worst_difference` found."""
    return {
        "name": "train/exact",
        "ours": difference,
        "other": EXACT,
        "ratio": EXACT / max(difference, 1e-300),
        "unit": "relative difference to a padded float64 forward and cross-entropy; other: the bound",
        "memory_ratio": None,
        "settings": {"ranks": list(ranks)},
    }


_Result = tuple[float, Tensor]


def _worst_of_modes(
    world: World, *, checkpoint: Path, rows: list[Triple], oracles: dict[float, _Result]
) -> float:
    differences = []
    for dropout, (loss, gradient) in oracles.items():
        for stored in (1.0, 0.5, 0.0):  # store, hybrid, replay
            found = _step(world, checkpoint, rows, packs=4, stored=stored, dropout=dropout)
            error = (found[1] - gradient).norm() / gradient.norm()
            differences += [float(error), abs(found[0] - loss) / loss]
    return max(differences)


def _step(
    world: World, checkpoint: Path, rows: list[Triple], *, packs: int, stored: float, dropout: float
) -> _Result:
    """Loss and gradient of a step in about so many packs, of which a share is kept."""
    embedder = load_embedder(checkpoint).double()
    if dropout:
        for module in embedder.modules():
            if hasattr(module, "attention_dropout"):
                setattr(module, "attention_dropout", dropout)  # noqa: B010  (modules declare tensors alone)
        embedder.train()
    else:
        fuse_layers(embedder.model, torch.float64)  # as on a CPU; elsewhere the stock layers are what runs
    batch = batch_of(tokenize_rows(embedder, rows), range(len(rows)))
    share = int(batch.lengths.sum()) // world.size
    output = contrastive_step(
        embedder,
        batch,
        build_loss(config.InfoNCE(temperature=TEMPERATURE)),
        world,
        pack_tokens=share // packs,
        store_tokens=None if stored == 1 else int(stored * share),
        dropout=(0, 1),  # of seed 0, step 1
    )
    return output.loss, _gradient(embedder)


def _padded(checkpoint: Path, rows: Sequence[Triple]) -> _Result:
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
