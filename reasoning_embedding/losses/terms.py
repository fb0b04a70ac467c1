"""The terms that a configuration can add to InfoNCE."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from reasoning_embedding import config
from reasoning_embedding.data.batch import Batch

from .distillation import distillation
from .regularisers import anchor_distance, sigreg, uniformity


@dataclass(frozen=True)
class Part:
    """What a rank computes a term from.

    Attributes
    ----------
    embeddings : Tensor
        (n, D) of all distinct texts.
    batch : Batch
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
    batch: Batch
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
        (part, scale) -> its value (these rows' part); adds `scale` times its gradient to ``part.gradient``.
    """

    name: str
    weight: float
    by_rows: bool
    compute: Callable[[Part, float], Tensor]


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


def _distillation(settings: config.Distillation, part: Part, scale: float) -> Tensor:
    """Mean over queries (kl) or over hard negatives (margin_mse)."""
    queries, candidates = len(part.batch.query), len(part.batch.document)
    count = queries if settings.method == "kl" else max(candidates - queries, 1)
    total = torch.zeros((), dtype=torch.float64, device=part.embeddings.device)
    for rows in part.rows.split(part.tile_rows):
        total += distillation(
            part.embeddings,
            part.batch,
            rows,
            settings,
            temperature=part.temperature,
            gradient=part.gradient,
            scale=scale / count,
        )
    return total / count


def _uniformity(settings: config.Uniformity, part: Part, scale: float) -> Tensor:
    """Mean of the queries' and the positives', as Wang and Isola's."""
    sides = (part.batch.query, part.batch.document[: len(part.batch.query)])
    values = [
        uniformity(
            part.embeddings,
            side.unique(),
            t=settings.t,
            tile_rows=part.tile_rows,
            gradient=part.gradient,
            scale=scale / len(sides),
        )
        for side in sides
    ]
    return torch.stack(values).mean()


def _sigreg(settings: config.SIGReg, part: Part, scale: float) -> Tensor:
    return sigreg(
        part.embeddings,
        directions=settings.directions,
        seed=part.batch.seed,
        gradient=part.gradient,
        scale=scale,
    )


def _anchor(settings: config.Anchor, part: Part, scale: float) -> Tensor:
    if part.anchor is None:
        raise ValueError("this loss needs the embeddings of the backbone before its first step")
    return anchor_distance(
        part.embeddings, part.anchor, debiased=settings.debiased, gradient=part.gradient, scale=scale
    )
