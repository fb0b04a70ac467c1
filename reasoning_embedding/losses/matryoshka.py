"""The first dimensions of embeddings as embeddings of their own."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from .tiles import RowSums


class AddsGradient(Protocol):
    """A loss of embeddings that adds its gradient to a tensor."""

    def __call__(self, embeddings: Tensor, *, gradient: Tensor) -> RowSums:
        """Return the loss of (n, k) embeddings, and add to their (n, k) gradient."""
        ...


def at_width(embeddings: Tensor, width: int, gradient: Tensor, loss: AddsGradient) -> RowSums:
    """Call a loss with embeddings cut to a width and made unit vectors again.

    Parameters
    ----------
    embeddings : Tensor
        (n, D) unit vectors.
    width : int
        1 .. D; at D they are used as they are.
    gradient : Tensor
        (n, D), gets what the loss adds, through the cut and the normalisation.
    loss : callable
        Takes (n, width) embeddings and adds to their gradient.

    Notes
    -----
    Matryoshka representation learning, Kusupati et al. 2022 (arXiv 2205.13147). With x the first dimensions,
    z = x / |x| and g the gradient with respect to z, x gets (g - (g . z) z) / |x|.
    """
    if width == embeddings.shape[1]:
        return loss(embeddings, gradient=gradient)
    norms = embeddings[:, :width].norm(dim=1, keepdim=True).clamp_min(1e-12)
    unit = embeddings[:, :width] / norms
    slope = torch.zeros_like(unit)
    result = loss(unit, gradient=slope)
    slope -= (slope * unit).sum(dim=1, keepdim=True) * unit
    gradient[:, :width] += slope / norms
    return result
