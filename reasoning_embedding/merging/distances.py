"""How far apart the merged models are, tensor by tensor, and where SLERP was LERP."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from reasoning_embedding.checkpoints.tensors import pieces

#: |cosine| above which SLERP interpolates linearly, as in mergekit.
LERP_COSINE = 0.9995
#: Relative orthogonal change that goes with it: sqrt(1 - 0.9995^2), 3.2 %.
LERP_CHANGE = math.sqrt(1 - LERP_COSINE**2)


def tensor_record(name: str, tensors: Sequence[Tensor], merged: Tensor) -> dict[str, Any]:
    """Compare one tensor of every model with that of the first.

    Parameters
    ----------
    name : str
        Of the tensor.
    tensors : sequence of Tensor
        One a model, of one shape; the first is what the others are held against (t = 0, or the base).
    merged : Tensor
        What the merge made of them.

    Returns
    -------
    dict
        ``norms`` (one a model) and ``norm_merged``; for every model after the first ``cosine``, ``angle``
        (degrees) and ``orthogonal_change``; None where a tensor is zero. Ready for JSON.

    Notes
    -----
    The orthogonal change of b from a is ``|b - (<a,b>/|a|^2) a| / |a|``. At equal norms it is the sine of the
    angle, and SLERP falls back to LERP where it is below 3.2 % (|cosine| > 0.9995). Sums are in float64.
    """
    everything = [*tensors, merged]
    squares, dots = [0.0] * len(everything), [0.0] * len(everything)
    for parts in pieces(everything):
        for index, part in enumerate(parts):
            squares[index] += float(part @ part)
            dots[index] += float(parts[0] @ part)
    norms = [math.sqrt(value) for value in squares]
    cosines = [_cosine(dots[i], norms[0], norms[i]) for i in range(1, len(tensors))]
    return {
        "name": name,
        "shape": list(merged.shape),
        "parameters": merged.numel(),
        "norms": norms[:-1],
        "norm_merged": norms[-1],
        "cosine": cosines,
        "angle": [None if value is None else math.degrees(math.acos(value)) for value in cosines],
        "orthogonal_change": [
            None if value is None else norms[i] / norms[0] * math.sqrt(max(0.0, 1 - value**2))
            for i, value in enumerate(cosines, start=1)
        ],
    }


def _cosine(dot: float, a: float, b: float) -> float | None:
    return max(-1.0, min(1.0, dot / (a * b))) if a * b > 0 else None


def fell_back(record: dict[str, Any]) -> bool:
    """Whether SLERP of this tensor is LERP: the two are all but parallel, or antiparallel."""
    [cosine] = record["cosine"]
    return cosine is not None and abs(cosine) > LERP_COSINE


def summary(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sum a merge up: counts, the share that fell back to LERP, and the models as wholes.

    Returns
    -------
    dict
        ``tensors``, ``parameters``; ``lerp_tensors`` and ``lerp_parameters`` (shares, None where the method is
        not SLERP); ``cosine_least`` and ``cosine_mean`` (weighted by parameters) over tensors and models.
    """
    parameters = sum(record["parameters"] for record in records)
    back = [record["parameters"] for record in records if record.get("lerp")]
    is_slerp = any("lerp" in record for record in records)
    weighted = [
        (cosine, record["parameters"])
        for record in records
        for cosine in record["cosine"]
        if cosine is not None
    ]
    return {
        "tensors": len(records),
        "parameters": parameters,
        "lerp_tensors": len(back) / len(records) if is_slerp else None,
        "lerp_parameters": sum(back) / parameters if is_slerp else None,
        "cosine_least": min((cosine for cosine, _ in weighted), default=None),
        "cosine_mean": sum(c * n for c, n in weighted) / sum(n for _, n in weighted) if weighted else None,
    }
