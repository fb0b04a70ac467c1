"""Linear metrics of two models over every row of a probe set, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from reasoning_embedding.distributed import World, sum_over_ranks
from reasoning_embedding.errors import InputError

from .metrics.procrustes import doubts, split_rows
from .moments import (
    CrossMoments,
    Moments,
    StreamedProcrustes,
    cka,
    correlation,
    debiased_cka,
    streamed_procrustes,
)

#: Rows whose shifted copies are held at once; fewer make the products slower.
_BLOCK = 512


def needed_mib(a: tuple[int, int], b: tuple[int, int], pairs: int) -> float:
    """MiB of the sums of two models of (layers, width) whose `pairs` pairs of layers are followed.

    Held-out products are kept for matched layers only, of which there are as many as `a` has layers.
    """
    own = a[0] * a[1] ** 2 + b[0] * b[1] ** 2
    held = a[0] * a[1] ** 2 if a[1] == b[1] else 0
    return 8 * (own + held + pairs * a[1] * b[1]) / 2**20


class PairStream:
    """Sums over the rows of two models, fed a block of rows at a time.

    Parameters
    ----------
    pairs : sequence of (int, int)
        Layers of one and the other model whose products are wanted.
    matched : sequence of (int, int)
        Those of `pairs` that Procrustes maps are wanted of.
    """

    def __init__(
        self, pairs: Sequence[tuple[int, int]], matched: Sequence[tuple[int, int]] | None = None
    ) -> None:
        self._pairs = list(dict.fromkeys(pairs))
        self._matched = set(self._pairs if matched is None else matched)
        self.sides: tuple[list[Moments], list[Moments]] = ([], [])
        self.cross: dict[tuple[int, int], CrossMoments] = {}

    @property
    def n(self) -> int:
        """Rows seen."""
        return self.sides[0][0].n

    def start(self, rows: Sequence[Sequence[torch.Tensor]]) -> None:
        """Take the points that sums are taken about from the first rows of each model's layers."""
        self.begin([[layer.double().mean(dim=0).to(layer.dtype) for layer in side] for side in rows])

    def begin(self, shifts: Sequence[Sequence[torch.Tensor]]) -> None:
        """Start at zero about given points (D,), which must be the same on every rank."""
        self.sides = ([Moments(shift) for shift in shifts[0]], [Moments(shift) for shift in shifts[1]])
        self.cross = {
            (i, j): CrossMoments.between(self.sides[0][i], self.sides[1][j]) for i, j in self._pairs
        }

    def add(self, rows: Sequence[Sequence[torch.Tensor]], held: torch.Tensor) -> None:
        """Add a block.

        Parameters
        ----------
        rows : two sequences of Tensor, each (b, D)
            The same rows in every layer of both models.
        held : Tensor of bool, shape (b,)
            Rows kept from the fit of Procrustes maps.
        """
        if not self.cross:
            self.start(rows)
        for some in torch.arange(len(held)).split(_BLOCK):
            part = slice(int(some[0]), int(some[-1]) + 1)
            self._add([[layer[part] for layer in side] for side in rows], held[part])

    def _add(self, rows: Sequence[Sequence[torch.Tensor]], held: torch.Tensor) -> None:
        held = held.to(rows[0][0].device)
        shifted = [
            [layer - moments.shift for moments, layer in zip(side, layers, strict=True)]
            for side, layers in zip(self.sides, rows, strict=True)
        ]
        held_rows = [[layer[held] for layer in layers] for layers in shifted]
        a, b = (torch.stack([_squared_norms(layer) for layer in layers]) for layers in shifted)
        for side, layers, out, norms in zip(self.sides, shifted, held_rows, (a, b), strict=True):
            for moments, layer, held_out, squares in zip(side, layers, out, norms, strict=True):
                moments.add(layer, squares, held, held_out)
        by_y = _weighted_sums(self.sides[0], shifted[0], a, b)
        by_x = _weighted_sums(self.sides[1], shifted[1], b, a)
        both = a @ b.T
        for (i, j), cross in self.cross.items():
            cross.add(shifted[0][i], shifted[1][j])
            cross.add_norms(by_y[i][j], by_x[j][i], both[i, j])
            if (i, j) in self._matched:
                cross.add_held(held_rows[0][i], held_rows[1][j])

    def reduce(self, world: World) -> None:
        """Sum over the ranks of a job, each of which saw its own rows."""
        if world.size == 1:
            return
        moments = [*self.sides[0], *self.sides[1]]
        for sums in (*moments, *self.cross.values()):
            for tensor in sums.tensors():
                sum_over_ranks(tensor, world)
        counts = sum_over_ranks(
            torch.tensor([[m.n, m.held] for m in moments], dtype=torch.int64, device=world.device), world
        )
        for found, (n, held) in zip(moments, counts.tolist(), strict=True):
            found.n, found.held = n, held


def _squared_norms(rows: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square()


def _weighted_sums(
    side: Sequence[Moments], layers: Sequence[torch.Tensor], own: torch.Tensor, other: torch.Tensor
) -> list[torch.Tensor]:
    """Sums of each layer's rows weighted by the squared norms (layers, b) of the other model; adds a layer's own sums.

    All sums of a layer are one product, so that its rows turn into float64 once.
    """
    found = []
    for moments, layer, norms in zip(side, layers, own, strict=True):
        weights = torch.cat([torch.ones_like(norms)[None], norms[None], other])
        sums = weights @ layer.double()
        moments.add_sums(sums[0], sums[1])
        found.append(sums[2:])
    return found


@dataclass(frozen=True, eq=False)
class Streamed:
    """What a pair of layers gives over all rows: values, chance levels, rows by metric."""

    values: dict[str, tuple[float, float | None, int]]
    fit: StreamedProcrustes | None
    warnings: list[str]


def linear_values(pair: CrossMoments) -> Streamed:
    """CKA and, at equal widths, dimension-wise correlation: what heat maps show."""
    values: dict[str, tuple[float, float | None, int]] = {}
    warnings: list[str] = []
    try:
        values["cka"] = (*cka(pair), pair.x.n)
        if pair.product.shape[0] == pair.product.shape[1]:
            value, still = correlation(pair)
            values["dimension_correlation"] = value, 0.0, pair.x.n
            if still:
                warnings.append(f"{still} of {len(pair.product)} dimensions are constant and left out")
    except InputError as error:
        warnings.append(error.what)
    return Streamed(values, None, warnings)


def streamed_metrics(pair: CrossMoments) -> Streamed:
    """Every linear metric of one pair of layers; one that does not exist is left out and explained."""
    linear = linear_values(pair)
    values, warnings = linear.values, linear.warnings
    if not values:
        return linear
    try:
        values["cka_debiased"] = debiased_cka(pair), 0.0, pair.x.n
        if "dimension_correlation" not in values:
            return linear
        fit = streamed_procrustes(pair)
    except InputError as error:
        return Streamed(values, None, [*warnings, error.what])
    warnings += doubts(fit.fitted, len(fit.rotation), fit.undetermined)
    values |= {
        "h_inv": (fit.value, fit.floor, fit.fitted),
        "h_inv_rescaled": (fit.rescaled, 0.0, fit.fitted),
        "procrustes_residual": (fit.residual, fit.residual_chance, fit.held),
    }
    return Streamed(values, fit, warnings)


def heldout_texts(texts: int, share: float, seed: int) -> np.ndarray:
    """Which texts are held out, bool (texts,): those :func:`.procrustes.split_rows` picks of all of them."""
    mask = np.zeros(texts, dtype=bool)
    mask[split_rows(texts, share, seed=seed)[1]] = True
    return mask
