"""The optimizer and its learning-rate schedule, a function of the step alone."""

from __future__ import annotations

import math

import torch
from torch import nn

from reasoning_embedding import config


def build_optimizer(model: nn.Module, training: config.Training) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; vectors (norm gains, biases) are not decayed."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=training.betas, fused=True)


def learning_rate_at(step: int, steps: int, training: config.Training) -> float:
    """Learning rate of `step` (1 .. steps): linear warm-up, then the schedule.

    Notes
    -----
    With w = ceil(warmup_ratio * steps), step s <= w has lr * s / w. After it, cosine follows
    f + (1 - f) * (1 + cos(pi * p)) / 2 with p = (s - w) / (steps - w) and f = final_learning_rate; linear
    follows 1 - (1 - f) * p.
    """
    warmup = math.ceil(training.warmup_ratio * steps)
    if step <= warmup:
        return training.learning_rate * step / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    floor = training.final_learning_rate
    factor = {
        "cosine": floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2,
        "linear": 1 - (1 - floor) * progress,
        "constant": 1.0,
    }[training.schedule]
    return training.learning_rate * factor
