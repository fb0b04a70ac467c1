"""Level 3, function: does a readout learnt on one model work on the other?"""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from reasoning_embedding.errors import InputError

from .result import Metric, as_rows, same_rows, same_width

TRANSFER = (
    "accuracy on Y's test rows of a {} probe fitted on X's training rows (regularisation chosen on X's dev "
    "rows, standardised by X's training rows)"
)
#: Inverse regularisation strengths tried on the dev rows, weakest last.
STRENGTHS = (0.01, 0.1, 1.0, 10.0)
#: Fewer rows of a class than this cannot be cut into train, dev and test.
FEWEST = 5
_ITERATIONS = 500
#: Below this float32 squares to 0.
_UNDERFLOW = 1e-19


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProbeTransfer(Metric):
    """A probe's accuracy across models; `value` is the transferred accuracy, `chance` the largest class's share.

    Parameters
    ----------
    own : float
        Accuracy on X's own test rows.
    gap : float
        ``own - value``: what is lost by changing the model.
    permuted : float
        Own accuracy after fitting on shuffled labels; near chance, or the probe reads something else.
    classes : int
        Classes that took part.
    correct : array of bool, shape (n,)
        Whether the transferred probe was right on each test row.
    rows : array of int, shape (n,)
        Which rows of the input those are.
    """

    own: float
    gap: float
    permuted: float
    classes: int
    correct: np.ndarray
    rows: np.ndarray

    @property
    def row_values(self) -> tuple[np.ndarray, np.ndarray]:
        """Hits of the transferred probe on the test rows."""
        return self.correct.astype(np.float64), self.rows


def linear_probe_transfer(
    x: Any,
    y: Any,
    labels: Sequence[Any] | np.ndarray,
    *,
    probe: Literal["logistic", "ridge"] = "logistic",
    test: float = 0.2,
    dev: float = 0.2,
    seed: int = 0,
) -> ProbeTransfer:
    """Fit a linear probe on X, freeze it, and read Y with it.

    Parameters
    ----------
    x, y : array or tensor, shape (n, D)
        Features of the same texts in two models.
    labels : sequence, length n
        The class of each text.
    probe : {"logistic", "ridge"}
        Multinomial logistic regression, or ridge regression on class indicators (closed form, faster).
    test, dev : float
        Shares of the rows, stratified by class; in (0, 1), together below 1.
    seed : int
        Seed of the split and of the shuffled control.

    Raises
    ------
    InputError
        On NaN rows, sides that do not match, rows without a label, shares that leave no training rows, an unknown
        probe, or fewer than two classes with at least five rows.

    Notes
    -----
    Both sides are standardised by the mean and spread of X's training rows: a change of basis, and also one of
    scale or mean, is part of the gap. The strength of regularisation is chosen on X's dev rows.

    Examples
    --------
    >>> labels = np.arange(200) % 2
    >>> x = np.random.RandomState(0).randn(200, 8) + 3 * labels[:, None]
    >>> found = linear_probe_transfer(x, x[:, ::-1] + 0.1, labels)
    >>> print(f"own {found.own:.2f}, transferred {found.value:.2f}, by chance {found.chance:.2f}")
    own 1.00, transferred 1.00, by chance 0.50
    """
    x, y = as_rows(x, "X"), as_rows(y, "Y")
    same_rows(x, y)
    same_width(x.shape[1], y.shape[1])
    if probe not in ("logistic", "ridge"):
        raise InputError(f"unknown probe {probe!r}", todo="choose one of logistic, ridge")
    if not (test > 0 and dev > 0 and test + dev < 1):
        raise InputError(f"test {test} and dev {dev} leave no training rows", todo="keep test + dev below 1")
    codes, use, warnings = _usable(labels, len(x))
    train, held_dev, held_test = (use[part] for part in stratified_split(codes[use], dev, test, seed))
    mean, spread = x[train].mean(axis=0), x[train].std(axis=0)
    still = x[train].min(axis=0) == x[train].max(axis=0)  # their spread may be a rounding residue
    still |= spread < _UNDERFLOW  # dead dimensions of MiniLM, whose squares float32 cannot hold
    if still.any():
        warnings.append(f"{still.sum()} of {x.shape[1]} dimensions are constant on X's training rows")
        spread = np.where(still, 1.0, spread)
    x, y = (x - mean) / spread, (y - mean) / spread
    fitted, converged = _fit(probe, x, codes, train, held_dev)
    if not converged:
        warnings.append(f"the probe did not converge in {_ITERATIONS} iterations")
    shuffled = codes.copy()
    shuffled[train] = np.random.default_rng(seed).permutation(codes[train])
    control, _ = _fit(probe, x, shuffled, train, held_dev)
    truth = codes[held_test]
    own, moved = fitted.score(x[held_test], truth), fitted.score(y[held_test], truth)
    return ProbeTransfer(
        value=float(moved),
        n=len(held_test),
        definition=TRANSFER.format(probe),
        chance=float(np.bincount(truth).max() / len(truth)),
        warnings=tuple(warnings),
        own=float(own),
        gap=float(own - moved),
        permuted=float(control.score(x[held_test], truth)),
        classes=len(np.unique(truth)),
        correct=fitted.predict(y[held_test]) == truth,
        rows=held_test,
    )


def _usable(labels: Sequence[Any] | np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Codes of all rows, the rows of classes that are large enough, and warnings on the others."""
    given = list(labels)
    if len(given) != n:
        raise InputError(f"{len(given)} labels for {n} rows", todo="give one label a row")
    # A NaN is not equal to itself.
    missing = [i for i, label in enumerate(given) if label is None or label != label]
    if missing:
        raise InputError(
            f"{len(missing)} of {n} rows have no label, the first is row {missing[0]}",
            where="labels",
            todo="drop those rows on both sides",
        )
    names, codes, counts = np.unique(np.asarray(given), return_inverse=True, return_counts=True)
    kept = counts >= FEWEST
    if kept.sum() < 2:
        raise InputError(
            f"{kept.sum()} of {len(names)} classes have at least {FEWEST} texts; a probe needs two",
            where="labels",
            todo="give more labelled texts",
        )
    warnings = []
    if not kept.all():
        few = ", ".join(map(str, names[~kept][:5]))
        warnings.append(
            f"{(~kept).sum()} of {len(names)} classes have fewer than {FEWEST} texts and are left out: {few}"
        )
    return codes, np.flatnonzero(kept[codes]), warnings


def stratified_split(codes: np.ndarray, dev: float, test: float, seed: int) -> tuple[np.ndarray, ...]:
    """Cut the rows of each class into train, dev and test; every class has a row in each part."""
    rng = np.random.default_rng(seed)
    parts: tuple[list[np.ndarray], ...] = ([], [], [])
    for code in np.unique(codes):
        rows = rng.permutation(np.flatnonzero(codes == code))
        n_test, n_dev = max(1, round(test * len(rows))), max(1, round(dev * len(rows)))
        for part, chosen in zip(
            parts, np.split(rows, [len(rows) - n_test - n_dev, len(rows) - n_test]), strict=True
        ):
            part.append(chosen)
    return tuple(np.sort(np.concatenate(part)) for part in parts)


def _fit(
    probe: str, x: np.ndarray, codes: np.ndarray, train: np.ndarray, dev: np.ndarray
) -> tuple[Any, bool]:
    """Return the probe that reads the dev rows best, and whether it converged; strong regularisation wins ties."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, RidgeClassifier

    fitted: list[Any]
    if probe == "logistic":
        fitted = [LogisticRegression(C=strength, max_iter=_ITERATIONS, tol=1e-3) for strength in STRENGTHS]
    else:
        fitted = [RidgeClassifier(alpha=len(train) / (100 * strength)) for strength in STRENGTHS]
    with python_warnings.catch_warnings():
        # Said in the result instead, and only of the probe that is used.
        python_warnings.simplefilter("ignore", ConvergenceWarning)
        for one in fitted:
            one.fit(x[train], codes[train])
    best = max(fitted, key=lambda one: one.score(x[dev], codes[dev]))
    return best, probe == "ridge" or int(best.n_iter_.max()) < _ITERATIONS
