"""Spectral records of one model: of its texts' features, or of all its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from reasoning_embedding.errors import InputError

from .comparison import Comparison
from .measure import finite
from .metrics.isotropy import isotropy
from .metrics.result import Metric
from .metrics.spectrum import (
    AlphaReq,
    alpha_of,
    alpha_req,
    participation_of,
    participation_ratio,
    rankme,
    rankme_of,
)
from .side import Side

_OF_FEATURES: dict[str, Callable[[np.ndarray], Metric]] = {
    "rankme_sigma": rankme,
    "rankme_lambda": lambda z: rankme(z, "lambda"),
    "participation_ratio": participation_ratio,
    "isotropy": isotropy,
    "alpha": alpha_req,
}


def features(side: Side, rule: str) -> np.ndarray:
    """Final-norm states of every text, (texts, D): of its ``last`` token, or the ``mean`` over its tokens."""
    return side.activations.last if rule == "last" else side.activations.mean


def spectrum_metrics(rows: np.ndarray) -> tuple[dict[str, Metric], list[str]]:
    """RankMe in both variants, participation ratio, isotropy and alpha-ReQ, and why any of them is missing."""
    return _measured({name: lambda m=metric: m(rows) for name, metric in _OF_FEATURES.items()})


def spectrum(side: Side, rule: str, warnings: list[tuple[str, str]]) -> dict[str, Any]:
    """Record of the final-norm features of every text; warnings are added to the list."""
    rows = features(side, rule)
    found, said = spectrum_metrics(rows)
    warnings += [(f"spectrum of {side.reference} ({rule})", text) for text in said]
    return {"n": len(rows), "features": rule, **_record(found, tuple(_OF_FEATURES))}


def row_spectrum(comparison: Comparison, index: int) -> dict[str, Any] | None:
    """Record of the final norm over all rows of one side (0 or 1), from its sums; None where rows were kept."""
    if comparison.stream is None:
        return None
    moments = comparison.stream.sides[index][-1]
    values, width = moments.eigenvalues(), len(moments.shift)
    found, _ = _measured(
        {
            "rankme_lambda": lambda: rankme_of(values, moments.n, width, "lambda"),
            "participation_ratio": lambda: participation_of(values, moments.n, width),
            "alpha": lambda: alpha_of(values, moments.n, width),
        }
    )
    record = _record(found, ("rankme_lambda", "participation_ratio", "alpha"))
    return {"n": moments.n, "features": f"rows ({comparison.a.sample.tokens})", **record}


def _measured(metrics: dict[str, Callable[[], Metric]]) -> tuple[dict[str, Metric], list[str]]:
    found, said = {}, []
    for name, metric in metrics.items():
        try:
            found[name] = metric()
        except InputError as error:
            said.append(error.what)
        else:
            said += found[name].warnings
    return found, list(dict.fromkeys(said))


def _record(found: dict[str, Metric], names: tuple[str, ...]) -> dict[str, Any]:
    record: dict[str, Any] = {name: finite(found.get(name), 5) for name in names}
    decay = found.get("alpha")
    known = isinstance(decay, AlphaReq)
    return record | {
        "alpha_r2": round(decay.r2, 5) if known else None,
        "alpha_range": list(decay.ranks) if known else None,
        "alpha_windows": [[round(fit.alpha, 5), *fit.ranks] for fit in decay.windows] if known else None,
        "definitions": {name: metric.definition for name, metric in found.items()},
    }
