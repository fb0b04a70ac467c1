"""Second moments that CKA, correlation, Procrustes and spectra need: of rows that are held, or as running sums over any
number of rows, whose memory is D^2 a layer. What is made of them is in :mod:`.metrics`, once for both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import torch

from reasoning_embedding.distributed import World, sum_over_ranks

from .metrics.layer import Layer, frobenius_square
from .metrics.linear_algebra import eigvalsh
from .metrics.result import same_rows

#: Rows whose shifted copies are held at once; fewer make the products slower.
_BLOCK = 512


class Moments:
    """Running sums of one layer's rows, taken about a fixed point near their mean.

    Parameters
    ----------
    shift : Tensor, shape (D,)
        That point. Far from the mean, sums of squares lose the digits that centring then needs.

    Notes
    -----
    With ``z = x - shift`` and ``a = |z|^2``: n, ``sum z``, ``sum z z'``, ``sum a``, ``sum a^2`` and ``sum a z``, in
    float64; each block's product is computed in the type of its rows. Of held-out rows: their number,
    ``sum z`` and ``sum a``.
    """

    def __init__(self, shift: torch.Tensor) -> None:
        width = len(shift)
        self.shift = shift
        self.n = self.held = 0
        self.total, self.weighted, self.held_total = (_zeros(shift, width) for _ in range(3))
        self.square = _zeros(shift, width, width)
        self.squares = _zeros(shift, 3)  # sum a, sum a^2, sum a of held-out rows

    def add(
        self, rows: torch.Tensor, norms: torch.Tensor, other_norms: torch.Tensor, held: torch.Tensor
    ) -> torch.Tensor:
        """Add shifted rows (b, D) with squared norms (b,), of which `held` (indices) are held out.

        Returns the sums (layers, D) of the rows weighted by `other_norms` (layers, b), the other model's squared norms.
        """
        # All sums are one product, so that the rows turn into float64 once.
        sums = torch.cat([torch.ones_like(norms)[None], norms[None], other_norms]) @ rows.double()
        self.n += len(rows)
        self.held += len(held)
        self.total += sums[0]
        self.weighted += sums[1]
        self.held_total += rows[held].sum(dim=0, dtype=torch.float64)
        self.square += rows.T @ rows
        self.squares += torch.stack([norms.sum(), norms @ norms, norms[held].sum()])
        return sums[2:]

    def tensors(self) -> list[torch.Tensor]:
        """What is summed over ranks."""
        return [self.total, self.weighted, self.held_total, self.square, self.squares]

    @property
    def mean(self) -> np.ndarray:
        """Mean of the rows minus the shift, float64 (D,)."""
        return _array(self.total) / self.n

    @property
    def name(self) -> str:
        """What errors call it: these sums belong to a layer of a model that was named when it was read."""
        return "a layer"

    @property
    def width(self) -> int:
        """Dimensions D."""
        return len(self.shift)

    @cached_property
    def constant(self) -> np.ndarray:
        """Dimensions of the finished sums whose variation is no more than the rounding of their mean, bool (D,)."""
        noise = torch.finfo(self.shift.dtype).eps * np.abs(self.mean + _array(self.shift)) * np.sqrt(self.n)
        return np.sqrt(np.maximum(self.variances, 0)) <= 4 * noise

    @cached_property
    def norms(self) -> np.ndarray:
        """``|Xc_j|`` of the finished sums, float64 (D,); 0 of constant dimensions."""
        return np.where(self.constant, 0, np.sqrt(np.maximum(self.variances, 0)))

    @cached_property
    def row_fourth_sum(self) -> float:
        """``sum_i |xc_i|^4`` of the finished sums."""
        return CrossMoments.own(self).row_square_product

    def covariance_sum(self) -> np.ndarray:
        """``Xc'Xc``, float64 (D, D)."""
        return _array(self.square) - self.n * np.outer(self.mean, self.mean)

    @cached_property
    def variances(self) -> np.ndarray:
        """``|Xc_j|^2``, float64 (D,), of the finished sums."""
        return np.diagonal(self.covariance_sum()).copy()

    @cached_property
    def self_square(self) -> float:
        """``|Xc'Xc|_F^2`` of the finished sums."""
        return float(np.square(self.covariance_sum()).sum())

    def eigenvalues(self) -> np.ndarray:
        """Eigenvalues of the covariance of the rows, largest first; the ones that must be 0 are left out."""
        found = eigvalsh(self.covariance_sum())[::-1] / (self.n - 1)
        return np.maximum(found, 0)[: min(self.n - 1, len(found))]

    def fitted_mean(self) -> np.ndarray:
        """Mean of the rows that are not held out, minus the shift."""
        return _array(self.total - self.held_total) / (self.n - self.held)

    def fitted_point(self) -> np.ndarray:
        """Mean of the rows that are not held out."""
        return self.fitted_mean() + _array(self.shift)

    def held_spread(self) -> float:
        """Sum of squared distances of the held-out rows from :meth:`fitted_mean`."""
        mean = self.fitted_mean()
        return float(self.squares[2] - 2 * mean @ _array(self.held_total) + self.held * mean @ mean)

    @property
    def row_square_sum(self) -> float:
        """``tr Xc'Xc``."""
        return float(self.squares[0]) - self.n * float(self.mean @ self.mean)


_Layer = TypeVar("_Layer", Layer, Moments)


class PairMoments(ABC, Generic[_Layer]):
    """Second moments of the same rows in two layers: all that a linear metric needs, from rows or from running sums.

    The layers `x` and `y` know their rows ``n``, ``width``, ``constant`` dimensions, column ``norms`` and squares.
    """

    x: _Layer
    y: _Layer

    @property
    def n(self) -> int:
        """Rows."""
        return self.x.n

    @property
    def names(self) -> str:
        """What errors call the two layers."""
        return f"{self.x.name} / {self.y.name}"

    @property
    @abstractmethod
    def cross(self) -> np.ndarray:
        """``Xc'Yc``, shape (D_x, D_y)."""

    @cached_property
    def cross_square(self) -> float:
        """``|Xc'Yc|_F^2``."""
        return frobenius_square(self.cross)

    @property
    @abstractmethod
    def diagonal(self) -> np.ndarray:
        """Diagonal of ``Xc'Yc``, float64, of layers of one width."""

    @property
    @abstractmethod
    def row_square_product(self) -> float:
        """``sum_i |xc_i|^2 |yc_i|^2``."""


class RowMoments(PairMoments[Layer]):
    """:class:`PairMoments` of two layers whose rows are held."""

    def __init__(self, x: Layer, y: Layer) -> None:
        same_rows(x.rows, y.rows)
        self.x, self.y = x, y

    @cached_property
    def cross(self) -> np.ndarray:
        """``Xc'Yc``, in the type of the rows."""
        return self.x.cross(self.y)

    @property
    def diagonal(self) -> np.ndarray:
        """Its diagonal, from the columns alone."""
        return np.einsum("nd,nd->d", self.x.centred, self.y.centred, dtype=np.float64)

    @property
    def row_square_product(self) -> float:
        """``sum_i |xc_i|^2 |yc_i|^2``."""
        return float(self.x.row_squares @ self.y.row_squares)


@dataclass(eq=False)
class CrossMoments(PairMoments[Moments]):
    """:class:`PairMoments` of running sums: ``sum z_x z_y'`` and what debiasing needs.

    Parameters
    ----------
    x, y : Moments
        The layers' own sums.
    product, held_product : Tensor, shape (D_x, D_y)
        ``sum z_x z_y'`` of all rows, and of the held-out ones; the latter is empty where no Procrustes map is wanted.
    by_y, by_x : Tensor, shape (D_x,) and (D_y,)
        ``sum |z_y|^2 z_x`` and ``sum |z_x|^2 z_y``.
    both : Tensor, scalar
        ``sum |z_x|^2 |z_y|^2``.
    """

    x: Moments
    y: Moments
    product: torch.Tensor
    held_product: torch.Tensor
    by_y: torch.Tensor
    by_x: torch.Tensor
    both: torch.Tensor

    @classmethod
    def between(cls, x: Moments, y: Moments, *, held: bool) -> CrossMoments:
        """Sums of two layers, at zero; with `held`, also of held-out rows, where the widths are equal."""
        p, q, shift = x.width, y.width, x.shift
        held_product = _zeros(shift, p, q) if held and p == q else _zeros(shift, 0, 0)
        return cls(x, y, _zeros(shift, p, q), held_product, _zeros(shift, p), _zeros(shift, q), _zeros(shift))

    @classmethod
    def own(cls, x: Moments) -> CrossMoments:
        """A layer against itself, from the sums it has."""
        return cls(x, x, x.square, _zeros(x.shift, 0, 0), x.weighted, x.weighted, x.squares[1])

    def tensors(self) -> list[torch.Tensor]:
        """What is summed over ranks."""
        return [self.product, self.held_product, self.by_y, self.by_x, self.both]

    @property
    def cross(self) -> np.ndarray:
        """``Xc'Yc``, float64 (D_x, D_y)."""
        return _array(self.product) - self.n * np.outer(self.x.mean, self.y.mean)

    @property
    def diagonal(self) -> np.ndarray:
        """Its diagonal."""
        return _array(self.product.diagonal()) - self.n * (self.x.mean * self.y.mean)

    def fitted_cross(self) -> np.ndarray:
        """``Xc'Yc`` of the rows that are not held out, centred by their own means, float64 (D, D)."""
        fitted = self.x.n - self.x.held
        held_product = _array(self.held_product)
        return (
            _array(self.product)
            - held_product
            - fitted * np.outer(self.x.fitted_mean(), self.y.fitted_mean())
        )

    def held_cross(self) -> np.ndarray:
        """``X'Y`` of the held-out rows, centred by the means of the others, float64 (D, D)."""
        mu, nu = self.x.fitted_mean(), self.y.fitted_mean()
        x_held, y_held = _array(self.x.held_total), _array(self.y.held_total)
        return (
            _array(self.held_product)
            - np.outer(x_held, nu)
            - np.outer(mu, y_held)
            + self.x.held * np.outer(mu, nu)
        )

    @property
    def row_square_product(self) -> float:
        """``sum_i |xc_i|^2 |yc_i|^2``, expanded about the shifts."""
        mu, nu, n = self.x.mean, self.y.mean, self.x.n
        m, k = float(mu @ mu), float(nu @ nu)
        linear = 2 * float(nu @ _array(self.by_x)) + 2 * float(mu @ _array(self.by_y))
        mixed = 4 * float(mu @ _array(self.product) @ nu)
        ends = k * float(self.x.squares[0]) + m * float(self.y.squares[0])
        return float(self.both) - linear + mixed + ends - 3 * n * m * k


def needed_mib(a: tuple[int, int], b: tuple[int, int], pairs: int) -> float:
    """MiB of the sums of two models of (layers, width) whose `pairs` pairs of layers are followed.

    Held-out products are kept for matched layers only, of which there are as many as `a` has layers.
    """
    own = a[0] * a[1] ** 2 + b[0] * b[1] ** 2
    held = a[0] * a[1] ** 2 if a[1] == b[1] else 0
    return 8 * (own + held + pairs * a[1] * b[1]) / 2**20


class PairSums:
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
        self.layers: tuple[list[Moments], list[Moments]] = ([], [])
        self.cross: dict[tuple[int, int], CrossMoments] = {}

    @property
    def n(self) -> int:
        """Rows seen."""
        return self.layers[0][0].n

    def begin(self, shifts: Sequence[Sequence[torch.Tensor]]) -> None:
        """Start at zero about given points (D,), which must be the same on every rank."""
        self.layers = ([Moments(shift) for shift in shifts[0]], [Moments(shift) for shift in shifts[1]])
        self.cross = {
            (i, j): CrossMoments.between(self.layers[0][i], self.layers[1][j], held=(i, j) in self._matched)
            for i, j in self._pairs
        }

    def add(self, rows: Sequence[Sequence[torch.Tensor]], held: torch.Tensor) -> None:
        """Add a block; without :meth:`begin` before, sums are taken about the means of the first.

        Parameters
        ----------
        rows : two sequences of Tensor, each (b, D)
            The same rows in every layer of both models.
        held : Tensor of bool, shape (b,)
            Rows kept from the fit of Procrustes maps.
        """
        if not self.cross:
            self.begin([[layer.double().mean(dim=0).to(layer.dtype) for layer in side] for side in rows])
        for some in torch.arange(len(held)).split(_BLOCK):
            part = slice(int(some[0]), int(some[-1]) + 1)
            self._add([[layer[part] for layer in side] for side in rows], held[part])

    def _add(self, rows: Sequence[Sequence[torch.Tensor]], held: torch.Tensor) -> None:
        out = held.nonzero().flatten().to(rows[0][0].device)
        x, y = (
            [layer - moments.shift for moments, layer in zip(side, layers, strict=True)]
            for side, layers in zip(self.layers, rows, strict=True)
        )
        a, b = (torch.stack([_squared_norms(layer) for layer in layers]) for layers in (x, y))
        by_y = [m.add(layer, norms, b, out) for m, layer, norms in zip(self.layers[0], x, a, strict=True)]
        by_x = [m.add(layer, norms, a, out) for m, layer, norms in zip(self.layers[1], y, b, strict=True)]
        both = a @ b.T
        for (i, j), cross in self.cross.items():
            cross.product += x[i].T @ y[j]
            cross.by_y += by_y[i][j]
            cross.by_x += by_x[j][i]
            cross.both += both[i, j]
            if len(cross.held_product):
                cross.held_product += x[i][out].T @ y[j][out]

    def reduce(self, world: World) -> None:
        """Sum over the ranks of a job, each of which saw its own rows."""
        if world.size == 1:
            return
        moments = [*self.layers[0], *self.layers[1]]
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


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()


def _zeros(like: torch.Tensor, *shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.float64, device=like.device)
