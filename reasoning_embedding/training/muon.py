"""Muon for the matrices of the body and AdamW for the rest, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from reasoning_embedding import config


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimizers with the groups and the state of one, so that it is saved and scheduled as one.

    Parameters
    ----------
    body : list of nn.Parameter
        Matrices, updated by torch's Muon.
    rest : list of dict
        Parameter groups of AdamW, with their weight decays.
    muon : config.Muon
        Momentum and iterations.
    training : config.Training
        Learning rate, AdamW's betas, and the weight decay of the body.

    Notes
    -----
    Muon's update is orthogonal, of size 1 in every direction; scaled by 0.2 sqrt(max(rows, columns)) it is
    as large as AdamW's usually is (Liu et al. 2025, arXiv 2502.16982), so both take one learning rate.
    """

    def __init__(
        self,
        body: list[nn.Parameter],
        rest: list[dict[str, Any]],
        muon: config.Muon,
        training: config.Training,
    ) -> None:
        rate = training.learning_rate
        self._parts: list[torch.optim.Optimizer] = []
        if body:
            self._parts.append(
                torch.optim.Muon(
                    body,
                    lr=rate,
                    weight_decay=training.weight_decay,
                    momentum=muon.momentum,
                    ns_steps=muon.iterations,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        if rest:
            self._parts.append(torch.optim.AdamW(rest, lr=rate, betas=training.betas, fused=True))
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # ty: ignore[incompatible-method-override]
        """Update every parameter that has a gradient."""
        loss = closure() if closure is not None else None
        groups = iter(self.param_groups)
        for part in self._parts:
            # Loading a state replaces groups and state of this object; the parts work on what it holds now.
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state
            part.step()
        return loss
