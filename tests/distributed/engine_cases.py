"""One step on any engine, and the padded oracle it must equal."""

from __future__ import annotations

import functools
import itertools
import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder, Readout, add_lora, fuse_layers, use_text_dropout
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.distributed import World
from reasoning_embedding.losses import build_loss
from reasoning_embedding.training import Engine, Replicated, StepOutput, contrastive_step
from reasoning_embedding.training.embedding_pass import EmbeddingPass
from reasoning_embedding.training.optimizers import build_optimizer
from reasoning_embedding.training.recompute import recompute_activations
from tests.factories import random_batch
from tests.models import exact_norms, gradients, tiny_embedder
from tests.padded_oracle import TEMPERATURE, padded_loss

ENGINES = ["replicated", "fsdp2", "zero1", "zero2", "zero3"]
#: What DeepSpeed tells of a gradient, it tells in float32; its stage 3 computes in float32 here, too (see build).
TOLERANCE = {"replicated": 1e-9, "fsdp2": 1e-9, "zero1": 1e-6, "zero2": 1e-6, "zero3": 1e-5}
#: The oracle knows no masks.
LOSS = build_loss(config.InfoNCE(temperature=TEMPERATURE, tile_rows=2, mask_same_text=False))
DROPOUT = (7, 3)
STORE = {"store": None, "hybrid": 30, "replay": 0}

logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)

MEAN = Readout()


@dataclass(frozen=True)
class Case:
    """A model, a batch and a way to hold activations."""

    family: str = "qwen3"
    memory: str = "store"
    checkpointing: bool = False
    lora: bool = False
    pack_tokens: int = 40
    idle: bool = False
    """Two texts only: every further rank has nothing to do."""
    fused: bool = False
    """Layers run as one function each, which knows no dropout; the oracle's do not."""
    readout: Readout = MEAN

    def batch(self) -> Batch:
        batch = random_batch(7)
        if self.idle:
            return Batch.from_arrays(batch.texts[:2], batch.prompt_lengths[:2], [0], [1, 0])
        return batch

    def embed(self, engine: Engine, texts: np.ndarray) -> EmbeddingPass:
        """Some of the batch's texts."""
        store = STORE[self.memory]
        return EmbeddingPass(
            engine, self.batch(), texts, pack_tokens=self.pack_tokens, store_tokens=store, dropout=DROPOUT
        )

    def step(self, engine: Engine, store_tokens: int | None) -> StepOutput:
        """One step on the batch."""
        return contrastive_step(
            engine.embedder,
            self.batch(),
            LOSS,
            engine.world,
            pack_tokens=self.pack_tokens,
            store_tokens=store_tokens,
            engine=engine,
            dropout=DROPOUT,
        )

    def embedder(self) -> Embedder:
        """In float64, with dropout in attention and adapters."""
        embedder = tiny_embedder(
            self.family, double=True, readout=self.readout, attention_dropout=0.0 if self.fused else 0.2
        )
        if self.checkpointing:
            recompute_activations(embedder.model, True)
        if self.lora:
            torch.manual_seed(0)
            add_lora(embedder, config.Lora(rank=4, dropout=0.3))
            for name, parameter in embedder.named_parameters():
                if "lora_B" in name:  # zero at the start: no gradient would reach lora_A
                    nn.init.normal_(parameter, std=0.05)
            embedder.double()
        use_text_dropout(embedder.model)
        return embedder.train()


def every_case(memory: str) -> list[Case]:
    """The full cross product of what does not need another world; batches that leave ranks idle, texts beyond a pack."""
    families = ("qwen3", "llama")
    product = itertools.product(families, (False, True), (False, True))
    cases = [Case(family, memory, checkpointing, lora) for family, checkpointing, lora in product]
    return cases + [
        Case(family, memory, **special)
        for family in families
        for special in ({"idle": True}, {"pack_tokens": 5, "lora": True})
    ]


def wanted(case: Case) -> tuple[float, torch.Tensor]:
    """Loss and gradient of one process and one padded forward, which knows no packs and keeps all."""
    return _padded(replace(case, memory="store", checkpointing=False, pack_tokens=0))


@functools.cache
def _padded(case: Case) -> tuple[float, torch.Tensor]:
    with exact_norms():
        embedder = case.embedder()
        loss = padded_loss(embedder, case.batch(), dropout=DROPOUT)
        loss.backward()
        return loss.item(), gradients(embedder)


def build(kind: str, embedder: Embedder, world: World, **options: Any) -> Engine:
    """An engine with the optimizer of a recipe over what is trained."""

    def adamw(module: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(module, config.Training(learning_rate=1e-3, weight_decay=0.01))

    if kind == "fsdp2":
        from reasoning_embedding.training.engines.fsdp2 import FSDP2

        options.setdefault("settings", config.EngineSettings("fsdp2"))
        return FSDP2(embedder, world, adamw, **options)
    if kind.startswith("zero"):
        from reasoning_embedding.training.engines.zero import ZeRO

        if kind == "zero3":  # refuses float64 where the processor can compute in fp16
            embedder = embedder.float()
        settings = config.EngineSettings.of_deepspeed({"zero_optimization": {"stage": int(kind[-1])}})
        return ZeRO(embedder, world, adamw, settings=settings, **options)
    return Replicated(embedder, world, adamw, **options)


def gradient(engine: Engine, kind: str) -> torch.Tensor:
    """The whole gradient, as one vector."""
    parts = []
    for parameter in engine.embedder.parameters():
        if not parameter.requires_grad:
            parts.append(torch.zeros(getattr(parameter, "ds_numel", parameter.numel()), dtype=torch.float64))
        elif kind.startswith("zero"):
            from deepspeed.utils import safe_get_full_grad

            parts.append(safe_get_full_grad(parameter).reshape(-1).double())
        else:
            found: Any = parameter.grad
            parts.append((found.full_tensor() if isinstance(found, DTensor) else found).reshape(-1))
    return torch.cat(parts)


def steps(world: World, kind: str, cases: list[Case]) -> list[tuple[float, torch.Tensor]]:
    """Loss and gradient of each case, on one rank of a world."""
    found = []
    with exact_norms():
        for case in cases:
            embedder = case.embedder()
            if case.fused:
                fuse_layers(embedder.model, torch.float64)
            engine = build(kind, embedder, world)
            output = case.step(engine, STORE[case.memory])
            found.append((output.loss, gradient(engine, kind)))
    return found
