"""The first dimensions of embeddings as embeddings of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import torch
from torch import Tensor


@contextlib.contextmanager
def at_width(embeddings: Tensor, width: int, gradient: Tensor) -> Generator[tuple[Tensor, Tensor]]:
    """Cut embeddings to a width and make them unit vectors again; send their gradient back when the block ends.

    Parameters
    ----------
    embeddings : Tensor
        (n, D) unit vectors.
    width : int
        1 .. D; at D they are used as they are.
    gradient : Tensor
        (n, D), gets what is added to that of the cut ones, through the cut and the normalisation.

    Yields
    ------
    tuple of Tensor
        (n, width) unit vectors, and their gradient, to be added to.

    Notes
    -----
    Matryoshka representation learning, Kusupati et al. 2022 (arXiv 2205.13147). With x the first dimensions,
    z = x / |x| and g the gradient with respect to z, x gets (g - (g . z) z) / |x|.
    """
    if width == embeddings.shape[1]:
        yield embeddings, gradient
        return
    norms = embeddings[:, :width].norm(dim=1, keepdim=True).clamp_min(1e-12)
    unit = embeddings[:, :width] / norms
    slope = torch.zeros_like(unit)
    yield unit, slope
    slope -= (slope * unit).sum(dim=1, keepdim=True) * unit
    gradient[:, :width] += slope / norms
