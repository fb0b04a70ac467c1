"""The terms that a configuration can add to InfoNCE."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from reasoning_embedding import config

from .distillation import distillation
from .regularisers import anchor_distance, sigreg, uniformity
from .slots import Slots


@dataclass(frozen=True)
class Share:
    """What a rank computes a term from.

    Attributes
    ----------
    embeddings : Tensor
        (n, D) of all distinct texts.
    slots : Slots
        Their parts.
    rows : Tensor
        This rank's queries.
    anchor : Tensor or None
        (n, D0) of the same texts by the backbone before its first step.
    temperature : float
        Of InfoNCE.
    tile_rows : int
        Rows at a time.
    gradient : Tensor
        (n, D), to be added to.
    """

    embeddings: Tensor
    slots: Slots
    rows: Tensor
    anchor: Tensor | None
    temperature: float
    tile_rows: int
    gradient: Tensor


@dataclass(frozen=True)
class Term:
    """Something added to InfoNCE.

    Attributes
    ----------
    name : str
        Under which its value is logged.
    weight : float
        It counts this much.
    by_rows : bool
        It is a sum over query rows, and each rank computes its own; else one rank computes the whole.
    compute : callable
        (share, scale) -> its value (these rows' part); adds `scale` times its gradient to ``share.gradient``.
    """

    name: str
    weight: float
    by_rows: bool
    compute: Callable[[Share, float], Tensor]


def terms(settings: config.InfoNCE) -> Iterator[Term]:
    """Terms of a configuration."""
    if settings.distillation is not None:
        compute = partial(_distillation, settings.distillation)
        yield Term("distillation", settings.distillation.weight, by_rows=True, compute=compute)
    if settings.uniformity is not None:
        compute = partial(_uniformity, settings.uniformity)
        yield Term("uniformity", settings.uniformity.weight, by_rows=False, compute=compute)
    if settings.sigreg is not None:
        compute = partial(_sigreg, settings.sigreg)
        yield Term("sigreg", settings.sigreg.weight, by_rows=False, compute=compute)
    if settings.anchor is not None:
        compute = partial(_anchor, settings.anchor)
        yield Term("anchor", settings.anchor.weight, by_rows=False, compute=compute)


def _distillation(settings: config.Distillation, share: Share, scale: float) -> Tensor:
    """Mean over queries (kl) or over hard negatives (margin_mse)."""
    queries, candidates = len(share.slots.query), len(share.slots.document)
    count = queries if settings.method == "kl" else max(candidates - queries, 1)
    total = torch.zeros((), dtype=torch.float64, device=share.embeddings.device)
    for rows in share.rows.split(share.tile_rows):
        total += distillation(
            share.embeddings,
            share.slots,
            rows,
            settings,
            temperature=share.temperature,
            gradient=share.gradient,
            scale=scale / count,
        )
    return total / count


def _uniformity(settings: config.Uniformity, share: Share, scale: float) -> Tensor:
    """Mean of the queries' and the positives', as Wang and Isola's."""
    sides = (share.slots.query, share.slots.document[: len(share.slots.query)])
    values = [
        uniformity(
            share.embeddings,
            side.unique(),
            t=settings.t,
            tile_rows=share.tile_rows,
            gradient=share.gradient,
            scale=scale / len(sides),
        )
        for side in sides
    ]
    return torch.stack(values).mean()


def _sigreg(settings: config.SIGReg, share: Share, scale: float) -> Tensor:
    return sigreg(
        share.embeddings,
        directions=settings.directions,
        seed=share.slots.seed,
        gradient=share.gradient,
        scale=scale,
    )


def _anchor(settings: config.Anchor, share: Share, scale: float) -> Tensor:
    if share.anchor is None:
        raise ValueError("this loss needs the embeddings of the backbone before its first step")
    return anchor_distance(
        share.embeddings, share.anchor, debiased=settings.debiased, gradient=share.gradient, scale=scale
    )
