"""Sums over rows that CKA, correlation, Procrustes and spectra need: memory D^2 a layer, whatever the rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from reasoning_embedding.errors import InputError

from .metrics.linear_algebra import eigvalsh
from .metrics.procrustes import h_inv_floor, inverse_entropy, nearest_rotation, row_cosines

#: Of a streamed metric: its value, and its chance level.
Value = tuple[float, float]


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
        self.norms = _zeros(shift, 3)  # sum a, sum a^2, sum a of held-out rows

    def add(
        self, rows: torch.Tensor, norms: torch.Tensor, held: torch.Tensor, held_rows: torch.Tensor
    ) -> None:
        """Add the products of shifted rows (b, D), their squared norms (b,) float64, and those held out of both."""
        self.n += len(rows)
        self.held += len(held_rows)
        self.square += rows.T @ rows
        self.held_total += held_rows.sum(dim=0, dtype=torch.float64)
        self.norms += torch.stack([norms.sum(), norms @ norms, norms[held].sum()])

    def add_sums(self, total: torch.Tensor, weighted: torch.Tensor) -> None:
        """Add what a block gives of the plain sum and of the one weighted by squared norms."""
        self.total += total
        self.weighted += weighted

    def tensors(self) -> list[torch.Tensor]:
        """What is summed over ranks."""
        return [self.total, self.weighted, self.held_total, self.square, self.norms]

    @property
    def mean(self) -> np.ndarray:
        """Mean of the rows minus the shift, float64 (D,)."""
        return _array(self.total) / self.n

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

    def held_spread(self) -> float:
        """Sum of squared distances of the held-out rows from :meth:`fitted_mean`."""
        mean = self.fitted_mean()
        return float(self.norms[2] - 2 * mean @ _array(self.held_total) + self.held * mean @ mean)

    def row_square_sum(self) -> float:
        """``tr Xc'Xc``."""
        return float(self.norms[0]) - self.n * float(self.mean @ self.mean)


@dataclass(eq=False)
class CrossMoments:
    """Running sums of one layer of X against one of Y: ``sum z_x z_y'`` and what debiasing needs.

    Parameters
    ----------
    x, y : Moments
        The layers' own sums.
    product, held_product : Tensor, shape (D_x, D_y)
        ``sum z_x z_y'`` of all rows, and of the held-out ones; the latter is empty at different widths.
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
    def between(cls, x: Moments, y: Moments) -> CrossMoments:
        """Sums of two layers, at zero."""
        p, q, shift = len(x.total), len(y.total), x.shift
        held = _zeros(shift, p, q) if p == q else _zeros(shift, 0, 0)
        return cls(x, y, _zeros(shift, p, q), held, _zeros(shift, p), _zeros(shift, q), _zeros(shift))

    @classmethod
    def own(cls, x: Moments) -> CrossMoments:
        """A layer against itself, from the sums it has."""
        return cls(x, x, x.square, _zeros(x.shift, 0, 0), x.weighted, x.weighted, x.norms[1])

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Add the products of shifted rows (b, D)."""
        self.product += x.T @ y

    def add_held(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Add the products of held-out rows, which Procrustes maps need; none at different widths."""
        if len(self.held_product):
            self.held_product += x.T @ y

    def add_norms(self, by_y: torch.Tensor, by_x: torch.Tensor, both: torch.Tensor) -> None:
        """Add what a block gives of the sums that are weighted by squared norms."""
        self.by_y += by_y
        self.by_x += by_x
        self.both += both

    def tensors(self) -> list[torch.Tensor]:
        """What is summed over ranks."""
        return [self.product, self.held_product, self.by_y, self.by_x, self.both]

    def centred(self) -> np.ndarray:
        """``Xc'Yc``, float64 (D_x, D_y)."""
        return _array(self.product) - self.x.n * np.outer(self.x.mean, self.y.mean)

    def row_square_product(self) -> float:
        """``sum_i |xc_i|^2 |yc_i|^2``, expanded about the shifts."""
        mu, nu, n = self.x.mean, self.y.mean, self.x.n
        m, k = float(mu @ mu), float(nu @ nu)
        linear = 2 * float(nu @ _array(self.by_x)) + 2 * float(mu @ _array(self.by_y))
        mixed = 4 * float(mu @ _array(self.product) @ nu)
        ends = k * float(self.x.norms[0]) + m * float(self.y.norms[0])
        return float(self.both) - linear + mixed + ends - 3 * n * m * k


@dataclass(frozen=True, eq=False)
class StreamedProcrustes:
    """A Procrustes map from sums; `mean_x` and `mean_y` (D,) are those of the fitted rows."""

    value: float
    rescaled: float
    floor: float
    residual: float
    residual_chance: float
    fitted: int
    held: int
    rotation: np.ndarray
    mean_x: np.ndarray
    mean_y: np.ndarray
    undetermined: int

    def row_cosines(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Cosines of XO and Y for rows (n, D) that were held out."""
        return row_cosines((x - self.mean_x) @ self.rotation, y - self.mean_y)


def streamed_procrustes(pair: CrossMoments) -> StreamedProcrustes:
    """Fit the rotation on the rows that are not held out; see :func:`.procrustes.orthogonal_procrustes`.

    Raises
    ------
    InputError
        If no rows were held out or none are left to fit on, or if the held-out ones do not vary.
    """
    x, y = pair.x, pair.y
    fitted = x.n - x.held
    if fitted < 2 or not x.held:
        raise InputError("no rows are left to fit the map on", todo="give more texts")
    mu, nu = x.fitted_mean(), y.fitted_mean()
    held_product = _array(pair.held_product)
    cross = _array(pair.product) - held_product - fitted * np.outer(mu, nu)
    rotation, free = nearest_rotation(cross)
    x_held, y_held = _array(x.held_total), _array(y.held_total)
    held_cross = held_product - np.outer(x_held, nu) - np.outer(mu, y_held) + x.held * np.outer(mu, nu)
    x_spread, y_spread = x.held_spread(), y.held_spread()
    if y_spread <= 0:
        raise InputError("the held-out rows do not vary", todo="give more distinct texts")
    left_over = x_spread + y_spread - 2 * float(np.einsum("ij,ij->", rotation, held_cross))
    value, floor = inverse_entropy(rotation), h_inv_floor(len(rotation))
    return StreamedProcrustes(
        value=value,
        rescaled=(value - floor) / (1 - floor),
        floor=floor,
        residual=max(0.0, left_over) / y_spread,
        residual_chance=1 + x_spread / y_spread,
        fitted=fitted,
        held=x.held,
        rotation=rotation,
        mean_x=mu + _array(x.shift),
        mean_y=nu + _array(y.shift),
        undetermined=free,
    )


def correlation(pair: CrossMoments) -> tuple[float, int]:
    """Mean dimension-wise correlation over the dimensions that vary on both sides, and how many do not.

    Raises
    ------
    InputError
        If none does.
    """
    alive = ~(_still(pair.x) | _still(pair.y))
    if not alive.any():
        raise InputError("every dimension is constant on one side", todo="use rows that differ")
    diagonal = np.diagonal(pair.centred())[alive]
    scale = np.sqrt(pair.x.variances[alive] * pair.y.variances[alive])
    return float(np.clip(diagonal / scale, -1, 1).mean()), int((~alive).sum())


def cka(pair: CrossMoments) -> Value:
    """Biased linear CKA and its mean over permutations of the rows.

    Raises
    ------
    InputError
        If a side does not vary.
    """
    traces = [side.row_square_sum() for side in (pair.x, pair.y)]
    scale = float(np.sqrt(pair.x.self_square * pair.y.self_square))
    if _still(pair.x).all() or _still(pair.y).all():
        raise InputError("all rows are equal, so CKA is not defined", todo="use rows that differ")
    cross = float(np.square(pair.centred()).sum())
    return min(1.0, cross / scale), traces[0] * traces[1] / ((pair.x.n - 1) * scale)


def debiased_cka(pair: CrossMoments) -> float:
    """CKA of the unbiased HSIC; see :func:`.geometry.debiased_linear_cka`.

    Raises
    ------
    InputError
        For fewer than four rows, or a self-similarity that is not positive.
    """
    if pair.x.n < 4:
        raise InputError(f"debiased CKA needs at least 4 rows, got {pair.x.n}")
    own = _unbiased(CrossMoments.own(pair.x)) * _unbiased(CrossMoments.own(pair.y))
    if own <= 0:
        raise InputError("too few rows to debias CKA (a self-similarity is not positive)")
    return _unbiased(pair) / float(np.sqrt(own))


def _unbiased(pair: CrossMoments) -> float:
    n, both = pair.x.n, pair.row_square_product()
    square = float(np.square(pair.centred()).sum())
    traces = pair.x.row_square_sum() * pair.y.row_square_sum()
    return square - both + traces / ((n - 1) * (n - 2)) - 2 * both / (n - 2)


def _still(side: Moments) -> np.ndarray:
    """Dimensions whose variation is no more than the rounding of their mean."""
    noise = torch.finfo(side.shift.dtype).eps * np.abs(side.mean + _array(side.shift)) * np.sqrt(side.n)
    return np.sqrt(np.maximum(side.variances, 0)) <= 4 * noise


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()


def _zeros(like: torch.Tensor, *shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.float64, device=like.device)
