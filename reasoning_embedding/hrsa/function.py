"""Level 3, function: does a readout learnt on one model work on the other?"""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reasoning_embedding.errors import InputError

from .result import Metric, as_rows, same_rows

TRANSFER = (
    "accuracy on Y's test rows of a logistic probe fitted on X's training rows (regularisation chosen on X's dev "
    "rows, standardised by X's training rows)"
)
#: Inverse regularisation strengths tried on the dev rows.
STRENGTHS = (0.01, 0.1, 1.0, 10.0)
_ITERATIONS = 500


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
    """

    own: float
    gap: float
    permuted: float
    classes: int


def linear_probe_transfer(
    x: Any, y: Any, labels: Sequence[Any] | np.ndarray, *, test: float = 0.2, dev: float = 0.2, seed: int = 0
) -> ProbeTransfer:
    """Fit a logistic probe on X, freeze it, and read Y with it.

    Parameters
    ----------
    x, y : array or tensor, shape (n, D)
        Features of the same texts in two models.
    labels : sequence, length n
        The class of each text.
    test, dev : float
        Shares of the rows, stratified by class; in (0, 1), together below 1.
    seed : int
        Seed of the split and of the shuffled control.

    Raises
    ------
    InputError
        On NaN rows, sides that do not match, shares that leave no training rows, or fewer than two classes
        with at least five rows.
    """
    x, y, labels = as_rows(x, "X"), as_rows(y, "Y"), np.asarray(labels)
    same_rows(x, y, width=True)
    if len(labels) != len(x):
        raise InputError(f"{len(labels)} labels for {len(x)} rows", todo="give one label a row")
    if not (test > 0 and dev > 0 and test + dev < 1):
        raise InputError(f"test {test} and dev {dev} leave no training rows", todo="keep test + dev below 1")
    names, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    kept = counts >= 5
    if kept.sum() < 2:
        raise InputError(
            f"{kept.sum()} of {len(names)} classes have at least 5 texts; a probe needs two",
            where="labels",
            todo="give more labelled texts",
        )
    warnings = []
    if not kept.all():
        few = ", ".join(map(str, names[~kept][:5]))
        warnings.append(
            f"{(~kept).sum()} of {len(names)} classes have fewer than 5 texts and are left out: {few}"
        )
    use = np.flatnonzero(kept[codes])
    train, held_dev, held_test = _stratified(codes[use], dev, test, seed)
    train, held_dev, held_test = use[train], use[held_dev], use[held_test]
    mean, spread = x[train].mean(axis=0), x[train].std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    x, y = (x - mean) / spread, (y - mean) / spread
    probe = _fit(x, codes, train, held_dev)
    if int(probe.n_iter_.max()) >= _ITERATIONS:
        warnings.append(f"the probe did not converge in {_ITERATIONS} iterations")
    shuffled = codes.copy()
    shuffled[train] = np.random.default_rng(seed).permutation(codes[train])
    own, moved = probe.score(x[held_test], codes[held_test]), probe.score(y[held_test], codes[held_test])
    return ProbeTransfer(
        value=float(moved),
        n=len(held_test),
        definition=TRANSFER,
        chance=float(np.bincount(codes[held_test]).max() / len(held_test)),
        warnings=tuple(warnings),
        own=float(own),
        gap=float(own - moved),
        permuted=float(_fit(x, shuffled, train, held_dev).score(x[held_test], codes[held_test])),
        classes=int(kept.sum()),
    )


def _stratified(codes: np.ndarray, dev: float, test: float, seed: int) -> tuple[np.ndarray, ...]:
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


def _fit(x: np.ndarray, codes: np.ndarray, train: np.ndarray, dev: np.ndarray) -> Any:
    """Return the probe, of all strengths, that reads the dev rows best; the strongest regularisation wins ties."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    probes = [LogisticRegression(C=strength, max_iter=_ITERATIONS, tol=1e-3) for strength in STRENGTHS]
    with python_warnings.catch_warnings():
        # Said in the result instead, and only of the probe that is used.
        python_warnings.simplefilter("ignore", ConvergenceWarning)
        for probe in probes:
            probe.fit(x[train], codes[train])
    return max(probes, key=lambda probe: probe.score(x[dev], codes[dev]))
