"""What a kind of training does to a metric, from lineages that were grown again: one primary metric, the others by Holm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reasoning_embedding.errors import InputError

from .equivalence import ALPHA, Equivalence, equivalence_of_runs

#: Fewer lineages give the difference and no word.
LINEAGES = 4
Scale = Literal["fisher", "logit", "plain"]
Word = Literal["equivalent within margin", "different", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicatedEffect:
    """Variant less placebo on one metric.

    Parameters
    ----------
    metric : str
        Its name.
    scale : {"fisher", "logit", "plain"}
        On which `test` is made.
    means : (float, float)
        Of placebo and variant over lineages, as the metric is read.
    test : Equivalence
        Of the mean difference on `scale`, over lineages.
    lineages : int
        The smaller number of a side.
    p_difference : float
        Against no difference; of a metric that is not the primary one after Holm.
    p_equivalence : float
        Against lying beyond the margin; likewise.
    """

    metric: str
    scale: Scale
    means: tuple[float, float]
    test: Equivalence
    lineages: int
    p_difference: float
    p_equivalence: float

    @property
    def word(self) -> Word | None:
        """The verdict on the kind of training; None of fewer than four lineages, which say nothing about it."""
        if self.lineages < LINEAGES:
            return None
        if self.p_equivalence < self.test.alpha:
            return "equivalent within margin"
        return "different" if self.p_difference < self.test.alpha else "undecided"


def replicated_effects(
    placebo: Mapping[str, Sequence[Sequence[float]]],
    variant: Mapping[str, Sequence[Sequence[float]]],
    *,
    primary: str,
    margins: Mapping[str, float],
    scales: Mapping[str, Scale] | None = None,
    paired: bool = True,
    alpha: float = ALPHA,
) -> list[ReplicatedEffect]:
    """Test over lineages whether a kind of training moves metrics more than its placebo.

    Parameters
    ----------
    placebo, variant : mapping of str to sequence of sequence of float
        Metric -> lineages -> contrastive seeds: the metric between the lineage's base and that arm.
    primary : str
        The metric named before the run; the others are corrected for being several.
    margins : mapping of str to float
        Metric -> what counts as no difference, on its scale, > 0, chosen before the run and never from a seed band.
    scales : mapping of str to str, optional
        ``fisher`` (artanh, of correlations and CKA), ``logit`` (of shares, such as overlaps) or ``plain``; absent ones
        are ``fisher``.
    paired : bool
        Lineage i of both arms grew from one base; else (a given base, variants by seed) Welch's test.
    alpha : float
        Level, in (0, 0.5).

    Returns
    -------
    list of ReplicatedEffect
        The primary metric first.

    Raises
    ------
    InputError
        For metrics that only one arm has, an unknown primary one, a missing margin, fewer than two lineages, unequal
        numbers of pairs, or a value that its scale does not know.

    Notes
    -----
    Contrastive seeds are averaged within a lineage, which is the unit: t with R - 1 degrees of freedom (paired) or
    Welch's. Holm (Scandinavian Journal of Statistics 6, 1979) over the metrics that are not the primary one.

    Examples
    --------
    >>> placebo = {"cka": [[0.93], [0.95], [0.94], [0.92]]}
    >>> variant = {"cka": [[0.81], [0.84], [0.80], [0.82]]}
    >>> [found] = replicated_effects(placebo, variant, primary="cka", margins={"cka": 0.2})
    >>> print(found.word, f"{found.means[0]:.2f} to {found.means[1]:.2f}")
    different 0.94 to 0.82
    """
    names = [primary, *(name for name in placebo if name != primary)]
    if set(placebo) != set(variant) or primary not in placebo:
        raise InputError(
            f"the arms have {', '.join(sorted(placebo))} and {', '.join(sorted(variant))}, primary is {primary}",
            todo="measure the same metrics on both, the primary one among them",
        )
    if lacking := [name for name in names if name not in margins]:
        raise InputError(f"no margin for {', '.join(lacking)}", where="margins", todo="name one beforehand")
    tests: dict[str, tuple[Equivalence, Scale, tuple[float, float]]] = {}
    for name in names:
        scale: Scale = (scales or {}).get(name, "fisher")
        means = [_lineage_means(arm[name], scale, name) for arm in (placebo, variant)]
        test = equivalence_of_runs(means[0], means[1], margins[name], paired=paired, alpha=alpha)
        tests[name] = test, scale, (_back(means[0].mean(), scale), _back(means[1].mean(), scale))
    others = names[1:]
    differences = [tests[primary][0].p_difference, *holm([tests[name][0].p_difference for name in others])]
    equivalences = [tests[primary][0].p_value, *holm([tests[name][0].p_value for name in others])]
    return [
        ReplicatedEffect(
            metric=name,
            scale=tests[name][1],
            means=tests[name][2],
            test=tests[name][0],
            lineages=min(len(placebo[name]), len(variant[name])),
            p_difference=different,
            p_equivalence=equivalent,
        )
        for name, different, equivalent in zip(names, differences, equivalences, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given.

    Examples
    --------
    >>> [round(p, 3) for p in holm([0.04, 0.01, 0.03])]
    [0.06, 0.03, 0.06]
    """
    found, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        found[index] = highest
    return found


def _lineage_means(lineages: Sequence[Sequence[float]], scale: Scale, name: str) -> np.ndarray:
    """Mean over contrastive seeds of each lineage, on the scale."""
    if any(len(seeds) == 0 for seeds in lineages):
        raise InputError(
            "a lineage has no value", where=name, todo="measure it, or leave it out of both arms"
        )
    return np.array([float(_forward(check_scale(seeds, scale, name), scale).mean()) for seeds in lineages])


def check_scale(values: Sequence[float], scale: Scale, name: str) -> np.ndarray:
    """Return values as an array, if the scale knows all of them.

    Raises
    ------
    InputError
        Else.
    """
    found = np.asarray(values, dtype=np.float64)
    low, high = {"fisher": (-1, 1), "logit": (0, 1), "plain": (-np.inf, np.inf)}[scale]
    if not ((found > low) & (found < high)).all():
        raise InputError(
            f"{found.tolist()} lie not all between {low} and {high}",
            where=f"{name} ({scale})",
            todo="choose another scale",
        )
    return found


def _forward(values: np.ndarray, scale: Scale) -> np.ndarray:
    if scale == "fisher":
        return np.arctanh(values)
    return np.log(values / (1 - values)) if scale == "logit" else values


def _back(value: float, scale: Scale) -> float:
    if scale == "fisher":
        return float(np.tanh(value))
    return float(1 / (1 + np.exp(-value))) if scale == "logit" else float(value)
