"""Speed and memory of the tiled loss against sentence-transformers', from embeddings to their gradient."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import (
    MIB,
    REPEATS,
    added_mib,
    cpu_ratio,
    cpu_seconds,
    in_new_process,
    take_turns,
    timed,
    wall_seconds,
)
from reasoning_embedding import config
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.losses.contrastive import build_loss
from reasoning_embedding.progress import Report

#: Takes (queries, positives, negatives) and returns the loss and the gradient of all three, end to end.
Stage = Callable[[list[Tensor]], tuple[float, Tensor]]

TEMPERATURE = 0.05
TILE_ROWS = config.InfoNCE().tile_rows
CHUNKS = (16, 32, 64, 128, 256, 512, 1024, 2048)
QUICK_CHUNKS = (64, 256, 1024)


@dataclass(frozen=True)
class BatchShape:
    """Queries, the width of the embeddings, and the candidates of each query: a positive and hard negatives."""

    queries: int
    dimension: int
    candidates: int = 2

    def __str__(self) -> str:
        return f"{self.queries}x{self.candidates * self.queries}"

    def columns(self) -> list[Tensor]:
        """Random unit vectors: queries, positives, negatives."""
        generator = torch.Generator().manual_seed(0)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        drawn = torch.empty(1 + self.candidates, self.queries, self.dimension)
        for column in drawn:  # in place: at scale there is room for one copy
            column.normal_(generator=generator)
            F.normalize(column, dim=1, out=column)
        return list(drawn.to(device))


SHAPES, SHAPES_QUICK = (BatchShape(8192, 256),), (BatchShape(4096, 256),)
#: A batch far beyond what plain losses hold, of which one rank computes its rows: one tile of them.
AT_SCALE, AT_SCALE_QUICK = BatchShape(65536, 1024, 4), BatchShape(8192, 1024, 4)


def bench_loss(*, quick: bool = False, report: Report = lambda line: None) -> Iterator[dict[str, Any]]:
    """Compare the loss stage of a step: the same embeddings, float32, device and threads on both sides.

    Parameters
    ----------
    quick : bool
        Half the queries and fewer chunks.
    report : callable
        Takes a line of progress.

    Yields
    ------
    dict
        For each shape and opponent (``st-mnrl``, MultipleNegativesRankingLoss; ``st-cached-best``, the chunked
        loss of CachedMultipleNegativesRankingLoss at its fastest chunk): ``name``, ``ours`` and ``other`` in
        ``unit``, ``ratio``, ``memory_ratio``, ``cpu_ratio`` (of processor time, for busy machines), settings,
        sweep, all timings, peaks, and the relative difference of the gradients. At last ``loss/.../scores``:
        ``ours`` is the memory of one rank's part of a batch of 65,536 queries with 4 candidates each (`quick`: an
        eighth of it) at width 1024, one tile of rows, ``other`` what one copy of all scores would take, on paper.

    Notes
    -----
    Their chunk is swept, our tile is the default; then all take turns, and the median of three counts. Memory
    is what a fresh process holds at its peak beyond what it held before, embeddings not included; on a GPU,
    what the allocator counts.
    """
    for shape in SHAPES_QUICK if quick else SHAPES:
        columns = shape.columns()
        sweep = {
            chunk: round(float(timed(partial(_sentence_transformers(chunk), columns))[0][0]), 4)
            for chunk in (QUICK_CHUNKS if quick else CHUNKS)
        }
        fastest = min(sweep, key=lambda chunk: sweep[chunk])
        report(f"loss/{shape} st-cached: fastest at a chunk of {fastest}, {sweep[fastest]:.2f} s")
        yield from _compare(
            shape, columns, {"ours": TILE_ROWS, "st-mnrl": 0, "st-cached-best": fastest}, sweep
        )
    yield _at_scale(AT_SCALE_QUICK if quick else AT_SCALE)


def _at_scale(shape: BatchShape) -> dict[str, Any]:
    """Measure one rank's part of a large batch, and say what it is made of."""
    tile = 4 * TILE_ROWS * shape.candidates * shape.queries
    ranks = shape.queries // TILE_ROWS
    scores = tile * ranks
    peak = _peak_memory("ours", shape, TILE_ROWS, ranks)
    ratio = round(scores / MIB / peak, 4)
    return {
        "name": f"loss/{shape}/scores/fp32",
        "ours": peak,
        "other": scores / MIB,
        "ratio": ratio,
        "unit": "MiB",
        "memory_ratio": ratio,
        "peak_mib": {
            "ours": peak,
            "predicted": round((_held(shape) + tile) / MIB, 1),
            "tile": tile / MIB,
        },
        "settings": {"tile_rows": TILE_ROWS, "dimension": shape.dimension, "ranks": ranks},
        "note": "other is one copy of all scores, on paper; losses that hold them hold several copies",
    }


def _held(shape: BatchShape) -> int:
    """Bytes beside the tile: the embeddings end to end, the vectors of both sides, and the gradient of each."""
    return 4 * 4 * (1 + shape.candidates) * shape.queries * shape.dimension


def _compare(
    shape: BatchShape, columns: list[Tensor], knobs: dict[str, int], sweep: dict[int, float]
) -> Iterator[dict[str, Any]]:
    stages = {side: _stage(side, knob) for side, knob in knobs.items()}
    turns = take_turns(
        {side: partial(timed, partial(stage, columns)) for side, stage in stages.items()}, repeats=REPEATS
    )
    times = {side: [seconds for seconds, _ in found] for side, found in turns.items()}
    seconds = {side: wall_seconds(found) for side, found in times.items()}
    memory = {side: _peak_memory(side, shape, knob) for side, knob in knobs.items()}
    for other in ("st-mnrl", "st-cached-best"):
        ours, theirs = (statistics.median(seconds[side]) for side in ("ours", other))
        least, most = memory["ours"], memory[other]
        yield {
            "name": f"loss/{shape}/{other}/fp32",
            "ours": ours,
            "other": theirs,
            "ratio": round(theirs / ours, 4),
            "unit": "s",
            "memory_ratio": round(most / least, 4),
            "peak_mib": {"ours": least, "other": most},
            "cpu_ratio": cpu_ratio(times["ours"], times[other]),
            "settings": {
                "tile_rows": knobs["ours"],
                "mini_batch_size": knobs[other] or None,
                "dimension": shape.dimension,
            },
            "sweep": sweep,
            "seconds": {"ours": seconds["ours"], "other": seconds[other]},
            "cpu_seconds": {"ours": cpu_seconds(times["ours"]), "other": cpu_seconds(times[other])},
            "largest_difference": _difference(stages["ours"], stages[other], columns),
        }


def _difference(ours: Stage, other: Stage, columns: list[Tensor]) -> float:
    """Return how far the gradients differ, relatively, along the sphere: theirs normalises once more."""
    x = torch.cat(columns)
    a, b = (g - (g * x).sum(dim=1, keepdim=True) * x for g in (ours(columns)[1], other(columns)[1]))
    return float((a - b).norm() / b.norm())


def _stage(side: str, chunk: int, ranks: int = 1) -> Stage:
    return _ours(chunk, ranks) if side == "ours" else _sentence_transformers(chunk)


def _ours(tile_rows: int, ranks: int = 1) -> Stage:
    """Our loss stage, of the last of `ranks` ranks."""
    loss = build_loss(config.InfoNCE(temperature=TEMPERATURE, tile_rows=tile_rows))

    def stage(columns: list[Tensor]) -> tuple[float, Tensor]:
        queries = len(columns[0])
        index = np.arange(len(columns) * queries)
        batch = Batch.from_arrays(
            [], np.zeros(0), index[:queries], index[queries:], index[:-queries] % queries
        )
        batch = batch.to(columns[0].device)
        gradient, sums = loss.compute(torch.cat(columns), batch, rank=ranks - 1, ranks=ranks)
        return float(sums["loss"]), gradient

    return stage


def _sentence_transformers(chunk: int) -> Stage:
    """The loss stage of MultipleNegativesRankingLoss, or of its cached form for a `chunk` above 0."""
    from sentence_transformers.sentence_transformer import losses

    model: Any = torch.nn.Sequential(torch.nn.Identity())  # the loss stage embeds nothing
    plain = losses.MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE)
    cached = losses.CachedMultipleNegativesRankingLoss(
        model, scale=1 / TEMPERATURE, mini_batch_size=chunk or 1
    )

    def stage(columns: list[Tensor]) -> tuple[float, Tensor]:
        leaves = [column.detach().requires_grad_() for column in columns]
        if chunk:
            value = cached.calculate_loss([[leaf] for leaf in leaves], with_backward=True)
        else:
            value = plain.compute_loss_from_embeddings(leaves, torch.empty(0))
            value.backward()
        return value.item(), torch.cat([leaf.grad for leaf in leaves if leaf.grad is not None])

    return stage


def _peak_memory(side: str, shape: BatchShape, chunk: int, ranks: int = 1) -> float:
    """Return MiB that one stage adds to a process of its own."""
    preload = ["sentence_transformers.sentence_transformer.losses", __name__]
    return in_new_process(_added, side, shape, chunk, ranks, preload=preload)


def _added(side: str, shape: BatchShape, chunk: int, ranks: int) -> float:
    _stage(side, chunk)(BatchShape(2, shape.dimension).columns())  # first calls load libraries
    return added_mib(partial(_stage(side, chunk, ranks), shape.columns()))
