"""HRSA as tables: the last layer against the seed band, probe transfer, spectrum."""

from __future__ import annotations

from .grid import Cell, Grid, named_columns
from .labels import HEADLINE, MAIN, REFERENCE_LEVELS, SHORT, brackets, metric_label, number
from .names import pair_title
from .records import AnalysedPair, Band, Experiment, band_place, finite, shared_probe

_HRSA_CAPTION = (
    "Values after the final norm of two checkpoints, on these texts; in brackets the 95 % bootstrap interval over the "
    "probe's texts, then the mean over shuffled rows."
)
_BAND_CAPTION = (
    " The seed band is {description}. “Inside”: the pair's whole interval lies in the band; “closer” and “farther”: it lies "
    "outside, and the models are more or less alike than the seeds; “across”: it crosses an end. These words describe two "
    "checkpoints and test nothing about how they were trained. Pairs of another kind (causal language models) or on "
    "another probe set have none, nor have metrics without an interval."
)


def hrsa_table(experiment: Experiment) -> Grid:
    """Pairs by headline metrics at the last layer, the seed band first, marks beside the others."""
    pairs, band = experiment.band_first, experiment.band
    metrics = [metric for metric in MAIN if any(pair.last.get(metric) is not None for pair in pairs)]
    rows = _band_rows(band, metrics)
    probe = shared_probe(pairs)
    seeds = len(rows) + (len(band.pairs) if band else 0)
    for pair in pairs:
        title = pair_title(experiment, pair)
        name = f"{title} (seed band)" if _in_band(experiment, pair) else title
        cells = [hrsa_cell(experiment, pair, metric) for metric in metrics]
        rows.append((_pair_cell(experiment, pair, name, "" if probe else f"probe: {pair.probe}"), *cells))
    return Grid(
        key="hrsa",
        title="HRSA: similarity at the last layer",
        caption=_HRSA_CAPTION
        + (f" Probe set: {probe}." if probe else "")
        + (_BAND_CAPTION.format(description=band.description) if band else ""),
        columns=named_columns("pair", *(metric_label(metric).title for metric in metrics)),
        rows=tuple(rows),
        reference_rows=frozenset(range(seeds)),
    )


def hrsa_summary(experiment: Experiment) -> Grid:
    """The HRSA table narrow enough for a terminal: values and marks, short names, no intervals."""
    pairs = experiment.band_first
    metrics = [metric for metric in SHORT if any(pair.last.get(metric) is not None for pair in pairs)]
    rows = _band_rows(experiment.band, metrics, ends=False)
    for pair in pairs:
        cells = [
            Cell(number(pair.last.get(metric)), mark=_mark(experiment, pair, metric)) for metric in metrics
        ]
        rows.append(
            (Cell(pair_title(experiment, pair), "(seed band)" if _in_band(experiment, pair) else ""), *cells)
        )
    against = ", against the seed band" if experiment.band else ""
    probes = "; ".join(dict.fromkeys(str(pair.probe) for pair in pairs))
    return Grid(
        key="hrsa-summary",
        title=f"HRSA at the last layer{against} (probe set: {probes})",
        caption="",
        columns=named_columns("pair", *(SHORT[metric] for metric in metrics)),
        rows=tuple(rows),
    )


def hrsa_details(experiment: Experiment) -> Grid:
    """Every metric by every pair."""
    pairs = experiment.band_first
    metrics = list(dict.fromkeys(metric for pair in pairs for metric in pair.last))
    return Grid(
        key="hrsa-details",
        title="All HRSA metrics at the last layer",
        caption="As above. Probe sets: " + "; ".join(f"{pair.name}: {pair.probe}" for pair in pairs) + ".",
        columns=named_columns("metric", *(pair_title(experiment, pair) for pair in pairs)),
        rows=tuple(
            (Cell(metric_label(metric).title), *(hrsa_cell(experiment, pair, metric) for pair in pairs))
            for metric in metrics
        ),
    )


def _in_band(experiment: Experiment, pair: AnalysedPair) -> bool:
    return experiment.band is not None and pair in experiment.band.pairs


def _band_rows(band: Band | None, metrics: list[str], *, ends: bool = True) -> list[tuple[Cell, ...]]:
    """The seed band of several pairs as a row, their mean and its ends; none where it is the row of its only pair."""
    if band is None or len(band.pairs) == 1:
        return []
    cells = (
        Cell(number(band.value(metric)), brackets(band.shown(metric)) if ends else "") for metric in metrics
    )
    return [(Cell("seed band", f"({band.name})"), *cells)]


def _pair_cell(experiment: Experiment, pair: AnalysedPair, name: str, probe: str) -> Cell:
    sides = experiment.sides(pair) or f"{pair.a.reference} v {pair.b.reference}"
    own = "" if pair.name == name else f"{pair.name}: "
    return Cell(name, f"{own}{sides}", probe)


def hrsa_cell(experiment: Experiment, pair: AnalysedPair, metric: str) -> Cell:
    """A pair's value at the last layer with its interval, mean over shuffled rows and place to the seed band."""
    value = pair.last.get(metric)
    bounds, chance = pair.intervals.get(metric), pair.chance.get(metric)
    return Cell(
        number(value),
        brackets(bounds),
        "" if chance is None or value is None else f"row shuffle {number(chance)}",
        _mark(experiment, pair, metric),
    )


def reference_levels(pair: AnalysedPair, metric: str) -> dict[str, float]:
    """What a pair's metric at the last layer is held against, by the names a reader knows; those that were measured."""
    found = {"row_shuffle": pair.chance.get(metric)}
    found |= {name: level.last.get(metric) for name, level in pair.levels.items()}
    return {
        REFERENCE_LEVELS[name][0]: value
        for name, value in found.items()
        if value is not None and name in REFERENCE_LEVELS
    }


def level_table(experiment: Experiment) -> Grid:
    """Pairs and metrics beside the levels they are held against."""
    known = [
        (pair, metric)
        for pair in experiment.band_first
        if pair.levels
        for metric in HEADLINE
        if metric in pair.last
    ]
    names = list(dict.fromkeys(name for pair, metric in known for name in reference_levels(pair, metric)))
    rows = []
    for pair, metric in known:
        levels = reference_levels(pair, metric)
        if pair.last[metric] is not None:
            cells = [Cell(number(levels.get(name))) for name in names]
            rows.append(
                (
                    Cell(pair_title(experiment, pair), pair.name),
                    Cell(metric_label(metric).title),
                    Cell(number(pair.last[metric]), brackets(pair.intervals.get(metric))),
                    *cells,
                )
            )
    meanings = "; ".join(f"{name}: {meaning}" for name, meaning in REFERENCE_LEVELS.values() if name in names)
    return Grid(
        key="reference-levels",
        title="What the similarities are held against",
        caption=f"At the last layer, on the same rows. {meanings[:1].upper()}{meanings[1:]}.",
        columns=named_columns("pair", "metric", "value", *names),
        rows=tuple(rows),
    )


def _mark(experiment: Experiment, pair: AnalysedPair, metric: str) -> str:
    """Word for how a pair stands to the seed band; empty where that cannot be tested."""
    return band_place(pair, experiment.band, metric) or ""


def transfer_table(experiment: Experiment) -> Grid:
    """Pairs by cross-model linear probe accuracies."""
    fields = {
        "own_a": "A on A",
        "own_b": "B on B",
        "a_to_b": "A on B",
        "b_to_a": "B on A",
        "gap_ab": "gap A to B",
        "gap_ba": "gap B to A",
        "chance": "chance",
        "permuted_control": "shuffled labels",
    }
    rows = []
    for pair in experiment.band_first:
        if pair.probe_transfer:
            values = [pair.probe_transfer.get(key) for key in fields]
            classes = pair.probe_transfer.get("classes")
            cells = [Cell(number(finite(value))) for value in values]
            rows.append(
                (
                    _pair_cell(experiment, pair, pair_title(experiment, pair), f"probe: {pair.probe}"),
                    *cells,
                    Cell("–" if classes is None else str(classes)),
                )
            )
    return Grid(
        key="transfer",
        title="HRSA, function: a linear probe carried to the other model",
        caption="Accuracy of a classifier fitted on one model's features and used, frozen, on the other's. The gap is "
        "what is lost on the way.",
        columns=named_columns("pair", *fields.values(), "classes"),
        rows=tuple(rows),
    )


def spectrum_table(experiment: Experiment) -> Grid:
    """Models by spectral geometry; the same model, features and probe set are listed once."""
    rows: dict[tuple[str, str, str], tuple[Cell, ...]] = {}
    found = [(pair, model, values) for pair in experiment.pairs for model, values in pair.spectrum]
    for pair, model, values in sorted(found, key=lambda item: item[2].get("features", "")):
        low, high = values.get("alpha_range") or (None, None)
        fit = "" if low is None else f"ranks {low} to {high}, R² {number(values.get('alpha_r2'))}"
        features = str(values.get("features", "–"))
        rows.setdefault(
            (model.reference, pair.probe.hash, features),
            (
                Cell(model.reference, model.attention, f"probe: {pair.probe}"),
                Cell({"last": "last token", "mean": "mean over tokens"}.get(features, features)),
                Cell(str(values.get("n", "–"))),
                Cell(number(values.get("rankme_sigma"), 1)),
                Cell(number(values.get("rankme_lambda"), 1)),
                Cell(number(values.get("alpha")), fit),
            ),
        )
    names = ("model", "features", "texts", "RankMe (singular values)", "RankMe (eigenvalues)", "alpha-ReQ")
    return Grid(
        key="spectrum",
        title="Spectral geometry",
        caption="RankMe is an effective number of dimensions, alpha the decay exponent of the covariance spectrum. "
        "Comparable only at an equal number of texts and equal features.",
        columns=named_columns(*names),
        rows=tuple(rows.values()),
    )
