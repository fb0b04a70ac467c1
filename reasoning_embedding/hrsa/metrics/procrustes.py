"""Level 1, representation: the rotation between two models, and how far it mixes axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import digamma, xlogy

from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.moments import CrossMoments, Moments

from .layer import Layer, frobenius_square, layer_of
from .linear_algebra import eigh, product, svd
from .result import Metric, effective_rows, same_rows, same_width, varies

H_INV = (
    "inverse row entropy of the orthogonal Procrustes map O fitted on centred rows: 1 - mean row entropy of "
    "O_ij^2 / ln D; 1 = signed permutation"
)
H_INV_RESCALED = "(H_inv - floor) / (1 - floor), floor = H_inv of a random orthogonal map"
H_INV_OF_DETERMINED = (
    "(H_inv - floor) / (ceiling - floor), floor = H_inv of a random orthogonal map, ceiling = of the same axes in the "
    "directions that the rows determine"
)
RESIDUAL = "|XO - Y|_F^2 / |Y|_F^2 on centred rows of held-out texts"
COSINE = "mean cosine of the rows of XO and Y, centred rows of held-out texts"
#: Ceiling and floor nearer than this cannot be told apart on a few hundred rows.
_NARROW = 0.02
#: Of so small a share of the directions H_inv is that of the directions, not of the map.
_FEWEST = 1 / 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Procrustes(Metric):
    """Orthogonal Procrustes; `value` is H_inv.

    Parameters
    ----------
    floor : float
        H_inv of a Haar-random orthogonal map of this size.
    ceiling : float
        H_inv of the same axes up to order and sign: 1, or less where only some principal components are mapped.
    rescaled : float
        ``(H_inv - floor) / (ceiling - floor)``: 0 = random basis, 1 = same axes up to order and sign; NaN where the
        rows determine so few directions that both are nearly one.
    residual : float
        ``|XO - Y|_F^2 / |Y|_F^2`` on held-out rows, centred by the means of the fitted rows.
    cosine : float
        Mean cosine between rows of XO and Y, same rows; NaN where no rows are held.
    row_cosines : array, shape (n_heldout,)
        Those cosines.
    heldout : array of int
        Which rows were held out; all of them when nothing was. Of running sums: those of them that were kept.
    map : array, shape (D, D)
        O; a partial isometry where only some components are mapped.
    residual_chance : float
        ``1 + |X|_F^2 / |Y|_F^2`` on those rows: what rows unrelated to each other give.
    """

    floor: float
    ceiling: float
    rescaled: float
    residual: float
    cosine: float
    row_cosines: np.ndarray
    heldout: np.ndarray
    map: np.ndarray
    residual_chance: float


def h_inv_floor(dimension: int) -> float:
    """H_inv of a Haar-random orthogonal matrix.

    Parameters
    ----------
    dimension : int
        d >= 2.

    Notes
    -----
    A row of O is uniform on the sphere, so ``O_ij^2 ~ Beta(1/2, (d-1)/2)`` and the expected row entropy is
    ``psi(d/2 + 1) - psi(3/2)``; hence the floor ``1 - (psi(d/2 + 1) - psi(3/2)) / ln d``.

    Examples
    --------
    >>> print(f"{h_inv_floor(1024):.4f}")
    0.1051
    """
    return float(1 - (digamma(dimension / 2 + 1) - digamma(1.5)) / np.log(dimension))


def inverse_entropy(matrix: np.ndarray) -> float:
    """H_inv of an orthogonal map: ``1 - (1/(D ln D)) sum_i [-sum_j O_ij^2 ln O_ij^2]``, in [0, 1].

    Rows of a partial isometry, shorter than 1, are scaled to 1 and weigh as much as they were long (squared).
    """
    squares = np.square(matrix)
    mass = squares.sum(axis=1)
    negentropy = xlogy(squares, squares).sum() - xlogy(mass, mass).sum()
    return float(1 + negentropy / (mass.sum() * np.log(len(matrix))))


def split_rows(
    n: int, share: float, *, seed: int = 0, documents: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Fitted and held-out row indices; whole documents are held out when `documents` names each row's."""
    groups = np.arange(n) if documents is None else np.asarray(documents)
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    out = np.isin(groups, names[: max(1, round(share * len(names)))])
    return np.flatnonzero(~out), np.flatnonzero(out)


def heldout_texts(texts: int, share: float, seed: int) -> np.ndarray:
    """Which texts are held out, bool (texts,): those :func:`split_rows` picks of all of them."""
    mask = np.zeros(texts, dtype=bool)
    mask[split_rows(texts, share, seed=seed)[1]] = True
    return mask


def orthogonal_procrustes(
    x: Any,
    y: Any,
    *,
    heldout: float = 0.2,
    seed: int = 0,
    documents: np.ndarray | None = None,
    components: int | None = None,
) -> Procrustes:
    """Fit the rotation that takes X onto Y; say how far it mixes axes and how well it fits new rows.

    Parameters
    ----------
    x, y : array, tensor or Layer, shape (n, D), D >= 2
        The same rows in two models.
    heldout : float
        Share of rows (of documents, where given) kept for residual and cosine, in [0, 1); with 0 the
        fitted rows are scored, which flatters.
    seed : int
        Seed of that split.
    documents : array of int, shape (n,), optional
        Document of each row; tokens of one document never stand on both sides of the split.
    components : int, optional
        Map only this many principal components of each side, 1 <= r <= D, and score projections on them.

    Raises
    ------
    InputError
        On NaN rows, on sides that do not match, for D = 1, and for more components than vary.

    Notes
    -----
    ``X'Y = U S V'``, ``O = U V'`` minimises ``|XO - Y|_F`` (Schoenemann 1966). Both sides are centred by the
    means of the fitted rows, and the held-out rows by the same means. H_inv does not weigh directions by
    variance: with a steep spectrum, noise decides most of O, and H_inv falls while CKA stays near 1. Then
    `components` keeps the r directions that carry variance: with their bases P, Q (D x r) and ``P'X'YQ = U S V'``
    the map is ``O = P U V' Q'``. Permutations and signs are still ignored; the same axes give the H_inv of the
    projector ``P P'``, the ceiling. Where fewer rows than dimensions leave directions without shared variance, O is
    likewise that of the others: which rotation the rest gets is decided by rounding.

    Examples
    --------
    >>> x = np.random.RandomState(0).randn(400, 16)
    >>> fit = orthogonal_procrustes(x, np.roll(x, 1, axis=1))
    >>> print(f"{fit.value:.3f}, residual {fit.residual:.3f}")
    1.000, residual 0.000
    """
    a, b = layer_of(x, "X"), layer_of(y, "Y")
    same_rows(a.rows, b.rows)
    where = _comparable(a, b)
    if heldout:
        fit, out = split_rows(len(a), heldout, seed=seed, documents=documents)
        (fit_x, x_out), (fit_y, target) = _centred_by(a, fit, out), _centred_by(b, fit, out)
    else:
        fit = out = np.arange(len(a))
        fit_x, fit_y = x_out, target = a.centred, b.centred
    if len(fit) < 2:
        raise InputError("no rows are left to fit the map on", where=where, todo="give more texts")
    cross = product(fit_x.T, fit_y).astype(np.float64)
    if components is None:
        found = _whole_map(cross, len(fit), effective_rows(a, b))
    else:
        p, q = (_principal(side, components, where) for side in (fit_x, fit_y))
        small, free = nearest_rotation(p.T @ cross @ q)
        target = target @ q @ q.T
        ceiling = (inverse_entropy(p @ p.T) + inverse_entropy(q @ q.T)) / 2
        found = _Map(p @ small @ q.T, free, len(fit), components, effective_rows(a, b), ceiling, "components")
    moved = product(x_out, found.rotation.astype(x_out.dtype))
    gap, spread, scale = (frobenius_square(rows) for rows in (moved - target, moved, target))
    return _result(found, gap, spread, scale, where, out, row_cosines(moved, target))


def procrustes_of_sums(
    sums: CrossMoments, kept: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
) -> Procrustes:
    """:func:`orthogonal_procrustes` from running sums: fitted on the rows that are not held out, scored on the others.

    Parameters
    ----------
    sums : CrossMoments
        With held-out products, of layers of one width.
    kept : (array, array, array), optional
        Those held-out rows of X and of Y that are held in memory, and their indices: what cosines are taken of.

    Raises
    ------
    InputError
        If no rows were held out or none are left to fit on, or if the held-out ones do not vary.
    """
    x, y = sums.x, sums.y
    where = _comparable(x, y)
    fitted = x.n - x.held
    if fitted < 2 or not x.held:
        raise InputError("no rows are left to fit the map on", where=where, todo="give more texts")
    found = _whole_map(sums.fitted_cross(), fitted, effective_rows(x, y))
    spread, scale = x.held_spread(), y.held_spread()
    gap = max(0.0, spread + scale - 2 * float(np.einsum("ij,ij->", found.rotation, sums.held_cross())))
    rows_x, rows_y, rows = kept or (np.empty((0, x.width)), np.empty((0, y.width)), np.empty(0, dtype=int))
    cosines = row_cosines((rows_x - x.fitted_point()) @ found.rotation, rows_y - y.fitted_point())
    return _result(found, gap, spread, scale, where, rows, cosines)


def _comparable(a: Layer | Moments, b: Layer | Moments) -> str:
    """Refuse layers between which there is no map; return what errors call the two."""
    same_width(a.width, b.width)
    where = f"{a.name} / {b.name}"
    if a.width < 2:
        raise InputError("Procrustes entropy needs at least 2 dimensions", where=where)
    varies(a, b)
    return where


@dataclass(frozen=True)
class _Map:
    """A fitted map: how many directions no shared variance fixes, and how many rows it was fitted on."""

    rotation: np.ndarray
    free: int
    fitted: int
    size: int
    effective_rows: float
    ceiling: float = 1.0
    unit: str = "dimensions"


def _whole_map(cross: np.ndarray, fitted: int, effective: float) -> _Map:
    """The map of all dimensions, or of the directions that the rows determine; its ceiling is then below 1."""
    rotation, free = nearest_rotation(cross)
    ceiling = 1.0
    if free > 1:
        same = [
            inverse_entropy(product(one, other))
            for one, other in ((rotation, rotation.T), (rotation.T, rotation))
        ]
        ceiling = sum(same) / 2
    return _Map(rotation, free, fitted, len(cross), effective, ceiling)


def _result(
    found: _Map,
    gap: float,
    spread: float,
    scale: float,
    where: str,
    heldout: np.ndarray,
    cosines: np.ndarray,
) -> Procrustes:
    """What a fitted map gives with ``|XO - Y|^2``, ``|XO|^2`` and ``|Y|^2`` of the held-out rows."""
    if scale <= 0:
        raise InputError("the held-out rows do not vary", where=where, todo="give more distinct texts")
    warnings = []
    if found.fitted < 4 * found.size:
        warnings.append(f"{found.fitted} fitted rows for {found.size} {found.unit}: H_inv needs N >= 4 D")
    if found.free > 1:
        warnings.append(
            f"the map is not determined in {found.free} of {found.size} directions (no shared variance), "
            "which H_inv leaves out"
        )
    free = found.free if found.free > 1 else 0
    value, floor = inverse_entropy(found.rotation), h_inv_floor(len(found.rotation))
    narrow = found.ceiling - floor < _NARROW or (found.size - free) < _FEWEST * found.size
    if narrow:
        warnings.append(
            f"{found.size - free} {found.unit} lie so oblique to the axes that H_inv is {found.ceiling:.3f} at best and "
            f"{floor:.3f} for a random basis: it tells little"
        )
    part = "" if found.unit == "dimensions" else f"; on {found.size} principal components a side"
    part += f"; in the {found.size - free} of {found.size} directions that the rows determine" if free else ""
    return Procrustes(
        value=value,
        n=found.fitted,
        definition=H_INV + part,
        chance=floor,
        warnings=tuple(warnings),
        effective_rows=found.effective_rows,
        floor=floor,
        ceiling=found.ceiling,
        rescaled=float("nan") if narrow and free else (value - floor) / (found.ceiling - floor),
        residual=gap / scale,
        cosine=float(cosines.mean()) if len(cosines) else float("nan"),
        row_cosines=cosines,
        heldout=heldout,
        map=found.rotation,
        residual_chance=1 + spread / scale,
    )


def _centred_by(layer: Layer, fit: np.ndarray, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fitted and held-out rows less the mean of the fitted ones."""
    rows = layer.centred[fit]
    mean = rows.mean(axis=0, dtype=np.float64).astype(rows.dtype)
    return rows - mean, layer.centred[out] - mean


def nearest_rotation(cross: np.ndarray) -> tuple[np.ndarray, int]:
    """``O = U V'`` of ``X'Y = U S V'`` (D, D) in float64, and in how many directions no shared variance fixes it.

    One such direction is determined up to its sign, which H_inv does not see. Where there are more, any rotation among
    them fits as well and H_inv would be that of the rounding: O is then the partial isometry of the other directions.
    """
    left, singular, right = svd(cross)
    free = int((singular < 1e-6 * singular[0]).sum())
    kept = len(singular) - free if free > 1 else len(singular)
    return product(left[:, :kept], right[:kept]), free


def row_cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cosine of each row (n, D) with its counterpart, float64 (n,); 0 where one of them is zero."""
    own_x, own_y, both = (np.einsum("nd,nd->n", a, b, dtype=np.float64) for a, b in ((x, x), (y, y), (x, y)))
    return both / np.maximum(np.sqrt(own_x) * np.sqrt(own_y), np.finfo(np.float64).tiny)


def _principal(rows: np.ndarray, components: int, where: str) -> np.ndarray:
    """Directions (D, r) of the largest variance."""
    squares, directions = eigh(rows.T.astype(np.float64) @ rows)
    rank = int((squares > len(squares) * np.finfo(np.float64).eps * squares[-1]).sum())
    if not 1 <= components <= rank:
        raise InputError(
            f"{components} components asked for, {rank} vary",
            where=where,
            todo=f"ask for 1 to {rank} components",
        )
    return directions[:, ::-1][:, :components]
