"""What may be asked of the geometry of all embeddings of a batch, whatever answers what.

Each function returns its value and ADDS `scale` times its gradient. None separates into query rows, so one
rank computes it for the whole batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reasoning_embedding.errors import InputError

_POINTS, _FARTHEST = 17, 5.0
_DIRECTIONS_AT_A_TIME = 64


def uniformity(
    embeddings: Tensor, texts: Tensor, *, t: float, tile_rows: int, gradient: Tensor, scale: float = 1.0
) -> Tensor:
    """Log of the mean Gaussian potential of all pairs of some texts.

    Parameters
    ----------
    embeddings : Tensor
        (n, D) unit vectors.
    texts : Tensor
        (m,) distinct rows of `embeddings`; with fewer than two there is no pair, and the value is 0.
    t : float
        Sharpness, > 0.
    tile_rows : int
        Rows at a time: no tensor is larger than tile_rows x m.
    gradient : Tensor
        (n, D), gets `scale` times the gradient added.
    scale : float
        Of the gradient only.

    Returns
    -------
    Tensor
        log(2 / (m (m - 1)) sum_{i<j} exp(-t |x_i - x_j|^2)); 0 when all are equal, about -2t when uniform on
        a large sphere.

    Notes
    -----
    Wang and Isola 2020 (arXiv 2005.10242), equation 4.
    """
    count = len(texts)
    if count < 2:
        return embeddings.new_zeros((), dtype=torch.float64)
    vectors = embeddings[texts]
    squares = vectors.square().sum(dim=1)
    slope = torch.zeros_like(vectors)
    mass = torch.zeros((), dtype=torch.float64, device=embeddings.device)
    for rows in torch.arange(count, device=embeddings.device).split(tile_rows):
        distances = torch.addmm(squares[None, :], vectors[rows], vectors.T, alpha=-2)
        potentials = distances.add_(squares[rows, None]).mul_(-t).exp_()
        potentials[torch.arange(len(rows), device=rows.device), rows] = 0
        each = potentials.sum(dim=1, keepdim=True)
        mass += each.sum().double()
        slope[rows] = potentials @ vectors - each * vectors[rows]
        del distances, potentials  # before the next tile takes their memory
    # Each pair is in both of its rows: d mass / dx_i = 4 t sum_j w_ij (x_j - x_i).
    gradient.index_add_(0, texts, slope * (4 * t * scale / mass).to(slope.dtype))
    return (mass / (count * (count - 1))).log()


def sigreg(embeddings: Tensor, *, directions: int, seed: int, gradient: Tensor, scale: float = 1.0) -> Tensor:
    r"""Test the embeddings' projections on random directions against the standard normal distribution.

    Parameters
    ----------
    embeddings : Tensor
        (n, D) unit vectors; scaled by sqrt(D), so that isotropic ones have unit variance in each direction.
    directions : int
        M, drawn uniformly from the sphere.
    seed : int
        Of the directions, the same on every device.
    gradient : Tensor
        (n, D), gets `scale` times the gradient added.
    scale : float
        Of the gradient only.

    Returns
    -------
    Tensor
        Mean over directions a of the Epps-Pulley statistic of z_i = sqrt(D) a . x_i,

        n int |(1/n) sum_i exp(i t z_i) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt,

        by the trapezoid rule on 17 points of [-5, 5].

    Notes
    -----
    SIGReg of LeJEPA (Balestriero and LeCun 2025, arXiv 2511.08544, algorithm 1). There the embeddings are
    free vectors. Here they have unit length, which a high-dimensional isotropic Gaussian of variance 1 / D
    nearly has too, so the test sees directions that are crowded, and the mean, but not the length.
    """
    count, dimension = embeddings.shape
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(dimension, directions, generator=generator, dtype=torch.float64)
    sketch = (drawn / drawn.norm(dim=0) * math.sqrt(dimension)).to(embeddings)
    step = 2 * _FARTHEST / (_POINTS - 1)
    total = torch.zeros((), dtype=torch.float64, device=embeddings.device)
    for part in sketch.split(_DIRECTIONS_AT_A_TIME, dim=1):
        projected = embeddings @ part
        slope = torch.zeros_like(projected)
        # The integrand is even, and 0 at t = 0: the points above 0 count twice, the last one's weight is half.
        for point in range(1, _POINTS // 2 + 1):
            t = point * step
            normal = math.exp(-(t**2) / 2)
            weight = normal * step * (1 if point == _POINTS // 2 else 2)
            cosine, sine = (projected * t).cos_(), (projected * t).sin_()
            real, imaginary = cosine.mean(dim=0) - normal, sine.mean(dim=0)
            total += weight * count * (real.square() + imaginary.square()).sum().double()
            slope += 2 * weight * t * (imaginary * cosine - real * sine)
        gradient.addmm_(slope, part.T, alpha=scale / directions)
    return total / directions


def check_anchor_texts(texts: int, *, debiased: bool, batch: str = "the batch") -> None:
    """Refuse batches in which :func:`anchor_distance` is 0 / 0.

    Parameters
    ----------
    texts : int
        Distinct texts of a batch.
    debiased : bool
        As in :func:`anchor_distance`.
    batch : str
        What to call it.

    Raises
    ------
    InputError
        With the number that it takes.
    """
    fewest = 4 if debiased else 2
    if texts < fewest:
        kind = "debiased CKA" if debiased else "CKA"
        raise InputError(
            f"{batch} has {texts} distinct text{'s' if texts != 1 else ''}, and {kind} is defined from {fewest} on",
            where="loss.anchor.debiased" if debiased else "loss.anchor",
            todo="raise training.batch_size" + (", or set loss.anchor.debiased: false" if debiased else ""),
        )


def anchor_distance(
    embeddings: Tensor, anchor: Tensor, *, debiased: bool, gradient: Tensor, scale: float = 1.0
) -> Tensor:
    """1 - linear CKA of the embeddings and fixed ones of the same texts.

    Parameters
    ----------
    embeddings : Tensor
        (n, D).
    anchor : Tensor
        (n, D0), constant.
    debiased : bool
        Use the unbiased HSIC estimate, n >= 4 (else n >= 2); the value may then exceed 1.
    gradient : Tensor
        (n, D), gets `scale` times the gradient added.
    scale : float
        Of the gradient only.

    Raises
    ------
    InputError
        If there are too few texts.

    Notes
    -----
    Kornblith et al. 2019 (arXiv 1905.00414); debiased: HSIC_1 of Song et al. 2012 in feature space, so no
    n x n matrix is formed. The same definitions as :func:`reasoning_embedding.hrsa.linear_cka` and
    :func:`reasoning_embedding.hrsa.debiased_linear_cka`.
    """
    check_anchor_texts(len(embeddings), debiased=debiased)
    x = embeddings.detach().requires_grad_()
    with torch.enable_grad():
        a, b = x - x.mean(dim=0), (anchor - anchor.mean(dim=0)).to(x)
        own = _hsic(a, a, debiased=debiased) * _hsic(b, b, debiased=debiased)
        distance = 1 - _hsic(a, b, debiased=debiased) / own.sqrt()
        (slope,) = torch.autograd.grad(distance, x)
    gradient.add_(slope, alpha=scale)
    return distance.detach().double()


def _hsic(a: Tensor, b: Tensor, *, debiased: bool) -> Tensor:
    """HSIC of centred rows, up to a factor that cancels in CKA."""
    square = (a.T @ b).square().sum()
    if not debiased:
        return square
    n, p, q = len(a), a.square().sum(dim=1), b.square().sum(dim=1)
    both = p @ q
    return square - both + p.sum() * q.sum() / ((n - 1) * (n - 2)) - 2 * both / (n - 2)
