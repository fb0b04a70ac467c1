"""One reference against every checkpoint of a run: how training moves a representation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.errors import InputError

from .compare import Report, chance_levels, describe_probe, matched_layers, pair_warnings, spectrum
from .levels import Measured, finite, knn_rows, measure, merged_warnings, metric_names
from .probes import load_probe
from .side import limited_threads, open_side


def realign(
    name: str,
    reference: Path,
    checkpoints: dict[int, Path],
    analysis: config.Analysis,
    *,
    run: str,
    against: str,
    bidirectional_reference: bool | None = None,
    bidirectional: bool | None = None,
    report: Report = print,
) -> dict[str, Any]:
    """Measure every checkpoint of a run against one reference, on the same rows.

    Parameters
    ----------
    name : str
        The trajectory's name.
    reference : Path
        Checkpoint everything is compared with.
    checkpoints : dict of int to Path
        Step to folder.
    analysis : config.Analysis
        Probe set, token rule, neighbourhoods, bounds.
    run, against : str
        What the user calls the run and the reference.
    bidirectional_reference, bidirectional : bool or None
        How to attend; None = as saved.
    report : callable
        Told what is going on, one line at a time.

    Returns
    -------
    dict
        Ready for JSON: steps ascending, each metric at the final norm and as the mean over layers, spectra
        (mean-pooled final-norm features) and chance levels.

    Raises
    ------
    InputError
        If there are no checkpoints, or one of them cannot be compared with the reference.
    """
    if not checkpoints:
        raise InputError("the run has no checkpoints", where=run, todo="train it first")
    probe = load_probe(analysis.probe)
    names, steps = metric_names(analysis.k), sorted(checkpoints)
    series: dict[str, list[float | None]] = {metric: [] for metric in names}
    means: dict[str, list[float | None]] = {metric: [] for metric in names}
    spectra: dict[str, list[float | None]] = {"rankme_sigma": [], "rankme_lambda": [], "alpha": []}
    warnings: list[tuple[str, str]] = []
    described: dict[str, Any] = {}
    last = Measured()
    with limited_threads(analysis.threads):
        base = open_side(reference, against, probe, analysis, bidirectional=bidirectional_reference)
        for count, step in enumerate(steps, start=1):
            place = f"step {step}"
            report(f"{name}: {run} {place} against {against} ({count}/{len(steps)})")
            side = open_side(
                checkpoints[step], f"{run}@{step}", probe, analysis, bidirectional=bidirectional, like=base
            )
            rows = knn_rows(base, side, analysis.seed)
            described = described or describe_probe(probe, base, rows)
            layers = [
                measure(base.layers[i], side.layers[j], rows.of(i, j), base.sample.documents, analysis)
                for i, j in matched_layers(base, side)
            ]
            last = layers[-1]
            for metric in names:
                series[metric].append(finite(last.metrics.get(metric)))
                known = [
                    value for layer in layers if (value := finite(layer.metrics.get(metric))) is not None
                ]
                means[metric].append(round(float(np.mean(known)), 6) if known else None)
            found = spectrum(side, "mean", [])
            for key, values in spectra.items():
                values.append(found[key])
            warnings += [(place, text) for layer in layers for text in layer.warnings]
            warnings += [(place, f"{what}: {text}") for what, text in pair_warnings(base, side)]
    return {
        "name": name,
        "run": run,
        "against": base.describe(),
        "probe": described,
        "steps": steps,
        "series": series,
        "series_mean": means,
        "spectrum": {"features": "mean", **spectra},
        "chance": chance_levels(last),
        "definitions": {metric: found.definition for metric, found in last.metrics.items()},
        "warnings": merged_warnings(warnings),
    }
