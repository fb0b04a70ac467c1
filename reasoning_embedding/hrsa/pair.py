"""Two checkpoints compared at every level: the record of a pair."""

from __future__ import annotations

from typing import Any

import numpy as np

from reasoning_embedding.errors import InputError

from .capture import FINAL
from .comparison import Comparison
from .heat_maps import cka_map, correlation_map
from .instrument import Instrument
from .measure import finite, merged_warnings
from .metrics.neighbours_and_cka import knn_overlap_of
from .metrics.probe_transfer import linear_probe_transfer
from .side import Checkpoint, limited_threads
from .spectral_records import row_spectrum, spectrum
from .streaming import linear_values


def compare(name: str, a: Checkpoint, b: Checkpoint, instrument: Instrument) -> dict[str, Any]:
    """Compare two checkpoints on a probe set.

    Parameters
    ----------
    name : str
        The pair's name.
    a, b : Checkpoint
        The models.
    instrument : Instrument
        Probe set, settings, cache, ranks.

    Returns
    -------
    dict
        Ready for JSON (no NaN; None where a metric does not exist, the reason in ``warnings``): both sides,
        probe, heat maps over all pairs of layers, metrics along the diagonal and at the final norm with
        intervals, chance levels and definitions, probe transfer and spectra.

    Raises
    ------
    InputError
        If a checkpoint cannot be used, or the tokenizers differ where rows are tokens.
    """
    say, settings = instrument.report, instrument.settings
    with limited_threads(settings):
        first = instrument.open(a)
        second = instrument.open(b, like=first)
        say(f"{name}: {a.reference} against {b.reference} on {len(instrument.probe.texts)} texts")
        found = Comparison(instrument.sides(first, second), instrument.probe, settings)
        record: dict[str, Any] = {"name": name, **_record(found)}
    shown = ("dimension_correlation", "cka", f"knn_jaccard@{_shown_k(found)}")
    values = ((metric, record["last"][metric]) for metric in shown)
    say(f"{name}: " + ", ".join(f"{metric} {value:.3f}" for metric, value in values if value is not None))
    return record


def _record(found: Comparison) -> dict[str, Any]:
    a, b, labels = found.a, found.b, found.a.activations.layers
    warnings = found.warnings()
    intervals, missing = found.all_intervals
    warnings += [("intervals", text) for text in missing]
    transfer = _probe_transfer(found, warnings)
    return {
        "a": a.describe(),
        "b": b.describe(),
        "probe": found.describe_probe() | {"heatmap_rows": found.n if found.every_pair else len(a.sample)},
        "layers": labels,
        "layers_a": labels,
        "layers_b": b.activations.layers,
        "heatmaps": _heat_maps(found),
        "diagonal_layers": [list(pair) for pair in found.labels],
        "diagonal": {metric: found.values(metric) for metric in found.names},
        "last": {metric: finite(found.last.metrics.get(metric)) for metric in found.names},
        "intervals": {name: intervals[name] for name in found.names if name in intervals},
        **found.facts(),
        "probe_transfer": transfer,
        "spectrum": {"a": spectrum(a, "last", warnings), "b": spectrum(b, "last", warnings)},
        "spectrum_mean": {"a": spectrum(a, "mean", warnings), "b": spectrum(b, "mean", warnings)},
        "spectrum_rows": {"a": row_spectrum(found, 0), "b": row_spectrum(found, 1)},
        "warnings": merged_warnings(warnings),
    }


def _shown_k(found: Comparison) -> int:
    """Neighbourhood of the heat map: the field's usual 10, else the smallest asked for."""
    ks = found.settings.k
    return 10 if 10 in ks else min(ks)


def _heat_maps(found: Comparison) -> dict[str, list[list[float | None]] | None]:
    """Every layer of one model against every layer of the other.

    Linear metrics come from the sums over all rows where those were kept for every pair, else from the kept rows.
    """
    a, b, k = found.a.layers, found.b.layers, _shown_k(found)
    widths = found.a.width == found.b.width
    if found.every_pair is not None:
        values = [
            [linear_values(found.every_pair[i, j]).values for j in range(len(b))] for i in range(len(a))
        ]
        cka = _of(values, "cka")
        correlation = _of(values, "dimension_correlation")
    else:
        cka = cka_map(a, b)
        correlation = correlation_map(a, b) if widths else np.empty((0, 0))
    neighbours = np.full((len(a), len(b)), np.nan)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            rows = found.rows.of(i, j)
            if k < len(rows):
                neighbours[i, j] = knn_overlap_of(x, y, rows, k).value
    return {
        "dimension_correlation": _json(correlation) if widths else None,
        "cka": _json(cka),
        f"knn_jaccard@{k}": _json(neighbours),
    }


def _of(values: list[list[dict]], name: str) -> np.ndarray:
    return np.array([[cell[name][0] if name in cell else np.nan for cell in row] for row in values])


def _json(values: np.ndarray) -> list[list[float | None]]:
    return [[round(float(value), 5) if np.isfinite(value) else None for value in row] for row in values]


def _probe_transfer(found: Comparison, warnings: list[tuple[str, str]]) -> dict[str, Any] | None:
    a, b, labels = found.a, found.b, found.probe.labels
    if labels is None or a.width != b.width:
        return None
    try:
        there = linear_probe_transfer(a.activations.mean, b.activations.mean, labels)
        back = linear_probe_transfer(b.activations.mean, a.activations.mean, labels)
    except InputError as error:
        warnings.append(("probe transfer", error.what))
        return None
    warnings += [("probe transfer", text) for text in there.warnings]
    return {
        "classes": there.classes,
        "n": there.n,
        "features": f"mean, {FINAL}",
        "own_a": there.own,
        "own_b": back.own,
        "a_to_b": there.value,
        "b_to_a": back.value,
        "gap_ab": there.gap,
        "gap_ba": back.gap,
        "chance": there.chance,
        "permuted_control": there.permuted,
        "definition": there.definition,
    }
