"""Level 1, representation: do the two models use the same axes?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import digamma, xlogy

from reasoning_embedding.errors import InputError

from .layer import Layer
from .result import Metric, same_rows

CORRELATION = "mean over dimensions of the Pearson correlation of dimension j in X with dimension j in Y"
H_INV = (
    "inverse row entropy of the orthogonal Procrustes map O fitted on centred rows: 1 - mean row entropy of "
    "O_ij^2 / ln D; 1 = signed permutation"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DimensionCorrelation(Metric):
    """Dimension-wise correlation; `per_dimension` (D,) holds NaN where a dimension is constant."""

    per_dimension: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Procrustes(Metric):
    """Orthogonal Procrustes; `value` is H_inv.

    Parameters
    ----------
    floor : float
        H_inv of a Haar-random orthogonal map of this size.
    rescaled : float
        ``(H_inv - floor) / (1 - floor)``: 0 = random basis, 1 = same axes up to order and sign.
    residual : float
        ``|XO - Y|_F^2 / |Y|_F^2`` on held-out rows, centred by the means of the fitted rows.
    cosine : float
        Mean cosine between rows of XO and Y, same rows.
    row_cosines : array, shape (n_heldout,)
        Those cosines.
    heldout : array of int
        Which rows were held out; all of them when nothing was.
    map : array, shape (D, D)
        O.
    residual_chance : float
        ``1 + |X|_F^2 / |Y|_F^2`` on those rows: what rows unrelated to each other give.
    """

    floor: float
    rescaled: float
    residual: float
    cosine: float
    row_cosines: np.ndarray
    heldout: np.ndarray
    map: np.ndarray
    residual_chance: float


def dimension_wise_correlation(x: Any, y: Any) -> DimensionCorrelation:
    """Mean Pearson correlation of each dimension with the same dimension of the other model.

    Parameters
    ----------
    x, y : array or tensor, shape (n, D)
        The same rows in two models.

    Raises
    ------
    InputError
        On NaN rows, on sides that do not match, and when every dimension is constant.

    Notes
    -----
    ``rho_j = <x_j, y_j> / (|x_j| |y_j|)`` on centred columns (arXiv 2601.21192, section 3). Constant
    dimensions have no correlation; they are left out of the mean and named in a warning.
    """
    return correlation_of(Layer(x, "X"), Layer(y, "Y"))


def correlation_of(a: Layer, b: Layer, diagonal: np.ndarray | None = None) -> DimensionCorrelation:
    """:func:`dimension_wise_correlation` of prepared layers; `diagonal` = diagonal of ``Xc'Yc`` if known."""
    same_rows(a.rows, b.rows, width=True)
    if diagonal is None:
        diagonal = np.einsum("nd,nd->d", a.centred, b.centred, dtype=np.float64)
    dead = a.constant | b.constant
    if dead.all():
        raise InputError(
            "every dimension is constant on one side",
            where=f"{a.name} / {b.name}",
            todo="use rows that differ",
        )
    rho = np.full(a.width, np.nan)
    rho[~dead] = np.clip(diagonal[~dead] / (a.norms[~dead] * b.norms[~dead]), -1, 1)
    warnings = (f"{dead.sum()} of {a.width} dimensions are constant and left out",) if dead.any() else ()
    return DimensionCorrelation(
        value=float(rho[~dead].mean()),
        n=len(a),
        definition=CORRELATION,
        chance=0.0,
        warnings=warnings,
        per_dimension=rho,
    )


def h_inv_floor(dimension: int) -> float:
    """H_inv of a Haar-random orthogonal matrix.

    Notes
    -----
    A row of O is uniform on the sphere, so ``O_ij^2 ~ Beta(1/2, (d-1)/2)`` and the expected row entropy is
    ``psi(d/2 + 1) - psi(3/2)``; hence the floor ``1 - (psi(d/2 + 1) - psi(3/2)) / ln d``.
    """
    return float(1 - (digamma(dimension / 2 + 1) - digamma(1.5)) / np.log(dimension))


def inverse_entropy(matrix: np.ndarray) -> float:
    """H_inv of an orthogonal matrix: ``1 - (1/(D ln D)) sum_i [-sum_j O_ij^2 ln O_ij^2]``, in [0, 1]."""
    squares = np.square(matrix)
    return float(1 + xlogy(squares, squares).sum() / (len(matrix) * np.log(len(matrix))))


def split_rows(
    n: int, share: float, *, seed: int = 0, documents: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Fitted and held-out row indices; whole documents are held out when `documents` names each row's."""
    groups = np.arange(n) if documents is None else np.asarray(documents)
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    out = np.isin(groups, names[: max(1, round(share * len(names)))])
    return np.flatnonzero(~out), np.flatnonzero(out)


def orthogonal_procrustes(
    x: Any, y: Any, *, heldout: float = 0.2, seed: int = 0, documents: np.ndarray | None = None
) -> Procrustes:
    """Fit the rotation that takes X onto Y; say how far it mixes axes and how well it fits new rows.

    Parameters
    ----------
    x, y : array or tensor, shape (n, D), D >= 2
        The same rows in two models.
    heldout : float
        Share of rows (of documents, where given) kept for residual and cosine, in [0, 1); with 0 the
        fitted rows are scored, which flatters.
    seed : int
        Seed of that split.
    documents : array of int, shape (n,), optional
        Document of each row; tokens of one document never stand on both sides of the split.

    Raises
    ------
    InputError
        On NaN rows, on sides that do not match, and for D = 1.

    Notes
    -----
    ``X'Y = U S V'``, ``O = U V'`` minimises ``|XO - Y|_F`` (Schoenemann 1966). Both sides are centred by the
    means of the fitted rows, and the held-out rows by the same means. H_inv does not weigh directions by
    variance: with a steep spectrum it falls while CKA stays near 1.
    """
    return procrustes_of(Layer(x, "X"), Layer(y, "Y"), heldout=heldout, seed=seed, documents=documents)


def procrustes_of(
    a: Layer, b: Layer, *, heldout: float = 0.2, seed: int = 0, documents: np.ndarray | None = None
) -> Procrustes:
    """:func:`orthogonal_procrustes` of prepared layers."""
    same_rows(a.rows, b.rows, width=True)
    if a.width < 2:
        raise InputError("Procrustes entropy needs at least 2 dimensions", where=f"{a.name} / {b.name}")
    everything = np.arange(len(a))
    fit, out = split_rows(len(a), heldout, seed=seed, documents=documents) if heldout else (everything,) * 2
    if len(fit) < 2:
        raise InputError(
            "no rows are left to fit the map on", where=f"{a.name} / {b.name}", todo="give more texts"
        )
    x_mean = a.centred[fit].mean(axis=0, dtype=np.float64).astype(a.centred.dtype)
    y_mean = b.centred[fit].mean(axis=0, dtype=np.float64).astype(b.centred.dtype)
    cross = (a.centred[fit] - x_mean).T @ (b.centred[fit] - y_mean)
    left, singular, right = np.linalg.svd(cross.astype(np.float64))
    rotation = left @ right
    moved = (a.centred[out] - x_mean) @ rotation
    target = (b.centred[out] - y_mean).astype(np.float64)
    target_square = float(np.square(target).sum())
    if target_square == 0:
        raise InputError(
            "the held-out rows do not vary", where=f"{a.name} / {b.name}", todo="give more distinct texts"
        )
    lengths = np.linalg.norm(moved, axis=1) * np.linalg.norm(target, axis=1)
    cosines = np.einsum("nd,nd->n", moved, target) / np.maximum(lengths, np.finfo(np.float64).tiny)
    warnings = []
    if len(fit) < 4 * a.width:
        warnings.append(f"{len(fit)} fitted rows for {a.width} dimensions: H_inv needs N >= 4 D")
    free = int((singular < 1e-6 * singular[0]).sum())
    if free > 1:
        warnings.append(f"the map is not determined in {free} of {a.width} directions (no shared variance)")
    value, floor = inverse_entropy(rotation), h_inv_floor(a.width)
    return Procrustes(
        value=value,
        n=len(fit),
        definition=H_INV,
        chance=floor,
        warnings=tuple(warnings),
        floor=floor,
        rescaled=(value - floor) / (1 - floor),
        residual=float(np.square(moved - target).sum()) / target_square,
        cosine=float(cosines.mean()),
        row_cosines=cosines,
        heldout=out,
        map=rotation,
        residual_chance=1 + float(np.square(moved).sum()) / target_square,
    )
