"""The optimizer and its learning-rate schedule, a function of the step alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from reasoning_embedding import config

from .adamw8bit import adamw8bit
from .muon import MuonWithAdamW

#: Names of an embedder's heads begin so.
HEADS = "heads."


def build_optimizer(model: nn.Module, training: config.Training) -> torch.optim.Optimizer:
    """Return the optimizer a recipe names, over the trainable parameters of `model`.

    Parameters
    ----------
    model : nn.Module
        Vectors (norm gains, biases) are not decayed.
    training : config.Training
        ``optimizer``, ``learning_rate``, ``betas`` and ``weight_decay``.

    Returns
    -------
    torch.optim.Optimizer
        One object whose groups all take the scheduled learning rate, and whose state is tensors alone.

    Raises
    ------
    SetupError
        If bitsandbytes is not installed and ``adamw8bit`` was asked for.
    """
    chosen = training.optimizer
    options: dict[str, Any] = {"lr": training.learning_rate, "betas": training.betas}
    heads = {id(p) for name, p in model.named_parameters() if name.startswith(HEADS)}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if isinstance(chosen, config.AdamW8bit):
        return adamw8bit(_groups(trainable, training.weight_decay, heads), **options)
    if isinstance(chosen, config.Muon):
        body = [p for p in _body_matrices(model) if id(p) not in heads]
        taken = {id(parameter) for parameter in body}
        rest = [parameter for parameter in trainable if id(parameter) not in taken]
        return MuonWithAdamW(body, _groups(rest, training.weight_decay, heads), chosen, training)
    return torch.optim.AdamW(_groups(trainable, training.weight_decay, heads), **options, fused=True)


def _groups(parameters: list[nn.Parameter], weight_decay: float, heads: set[int]) -> list[dict[str, Any]]:
    # Heads last and by themselves: a sharding engine keeps them whole, and no fused update takes shards beside them.
    groups = [
        {"params": [p for p in some if (p.ndim >= 2) == decayed], "weight_decay": weight_decay * decayed}
        for some in (
            [p for p in parameters if id(p) not in heads],
            [p for p in parameters if id(p) in heads],
        )
        for decayed in (True, False)
    ]
    return [group for group in groups if group["params"]]


def _body_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Trainable matrices outside of embeddings."""
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    return [p for p in model.parameters() if p.requires_grad and p.ndim == 2 and id(p) not in tables]


def learning_rate_at(step: int, steps: int, training: config.Training) -> float:
    """Learning rate of `step` (1 .. steps): linear warm-up, then the schedule; both again after each restart.

    Notes
    -----
    Of n steps from one restart to the next, w = ceil(warmup_ratio * n), step s <= w has lr * s / w. After it, cosine
    follows f + (1 - f) * (1 + cos(pi * p)) / 2 and linear 1 - (1 - f) * p, with f = final_learning_rate and
    p = (s - w) / (n - w). Without f they go to 0 with p = (s - 1 - w) / (n - w), as the schedulers of torch and
    transformers do from one update to the next: no step has a rate of 0. Restarts are those of SGDR (Loshchilov and
    Hutter, 2017).
    """
    bounds = [0, *training.restarts]
    before = max(bound for bound in bounds if bound < step)
    steps = min((bound for bound in training.restarts if bound > before), default=steps) - before
    step -= before
    warmup = math.ceil(training.warmup_ratio * steps)
    if step <= warmup:
        return training.learning_rate * step / warmup
    floor = training.final_learning_rate
    progress = (step - (floor is None) - warmup) / max(steps - warmup, 1)
    floor = floor or 0.0
    factor = {
        "cosine": floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2,
        "linear": 1 - (1 - floor) * progress,
        "constant": 1.0,
    }[training.schedule]
    return training.learning_rate * factor
