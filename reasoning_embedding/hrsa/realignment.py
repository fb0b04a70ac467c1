"""One reference against every checkpoint of a run: how training moves a representation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from reasoning_embedding.errors import InputError

from .comparison import Comparison
from .instrument import Instrument
from .measure import finite, merged_warnings
from .side import Checkpoint, limited_threads
from .spectral_records import spectrum

_SPECTRUM = ("rankme_sigma", "rankme_lambda", "participation_ratio", "isotropy", "alpha")


def realign(
    name: str,
    reference: Checkpoint,
    checkpoints: Mapping[int, Checkpoint],
    instrument: Instrument,
    *,
    run: str,
) -> dict[str, Any]:
    """Measure every checkpoint of a run against one reference, on the same rows.

    Parameters
    ----------
    name : str
        The trajectory's name.
    reference : Checkpoint
        What everything is compared with.
    checkpoints : mapping of int to Checkpoint
        By step.
    instrument : Instrument
        Probe set, settings, cache, ranks.
    run : str
        What the user calls the run.

    Returns
    -------
    dict
        Ready for JSON: steps ascending, each metric at the final norm (with intervals) and as the mean over
        layers, spectra (mean-pooled final-norm features), chance levels and definitions.

    Raises
    ------
    InputError
        If there are no checkpoints, or one of them cannot be compared with the reference.
    """
    if not checkpoints:
        raise InputError("the run has no checkpoints", where=run, todo="train it first")
    steps = sorted(checkpoints)
    series, means, layers, spectra, intervals = ({} for _ in range(5))
    warnings: list[tuple[str, str]] = []
    facts: dict[str, Any] = {}
    with limited_threads(instrument.settings):
        base, side = instrument.open(reference), None
        for count, step in enumerate(steps, start=1):
            instrument.report(
                f"{name}: {run} step {step} against {reference.reference} ({count}/{len(steps)})"
            )
            sides = instrument.sides(base, instrument.open(checkpoints[step], like=base), side)
            side = sides.a
            pair = Comparison(sides, instrument.probe, instrument.settings)
            ends, missing = pair.step_intervals
            for metric in pair.names:
                series.setdefault(metric, []).append(finite(pair.last.metrics.get(metric)))
                means.setdefault(metric, []).append(_mean(pair.values(metric)))
                layers.setdefault(metric, []).append(pair.values(metric))
                intervals.setdefault(metric, []).append(ends.get(metric))
            values = spectrum(pair.b, "mean", [])
            for key in _SPECTRUM:
                spectra.setdefault(key, []).append(values[key])
            warnings += [(f"step {step}", text) for text in (*_said(pair), *missing)]
            facts = {
                "layers": [label for label, _ in pair.labels],
                "probe": pair.describe_probe(),
                **pair.facts(),
            }
    assert side is not None
    return {
        "name": name,
        "run": run,
        "against": side.describe(),
        "steps": steps,
        "series": series,
        "series_mean": means,
        "series_layers": layers,
        "intervals": intervals,
        "spectrum": {"features": "mean", **spectra},
        **facts,
        "warnings": merged_warnings(warnings),
    }


def _said(pair: Comparison) -> list[str]:
    """Warnings of one step: a layer's own without its name, others with their subject."""
    layers = {label for label, _ in pair.labels}
    return [text if place in layers else f"{place}: {text}" for place, text in pair.warnings()]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 6) if known else None
