"""HRSA records: how its JSON files are read, and when a pair lies inside the seed band."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from reasoning_embedding.errors import InputError

from .labels import metric_label
from .records import Model, Pair, Probe, Realignment

Verdict = Literal["inside", "closer", "farther"]


def read_pair(record: dict[str, Any], path: Path) -> Pair:
    """Record of a pair file.

    Raises
    ------
    InputError
        If the file lacks a part that gives its numbers their meaning.
    """
    _require(record, ("name", "a", "b", "probe", "last"), path)
    shared = [str(label) for label in record.get("layers") or []]
    return Pair(
        name=str(record["name"]),
        a=_model(record["a"]),
        b=_model(record["b"]),
        probe=_probe(record["probe"]),
        layers_a=tuple(str(label) for label in record.get("layers_a") or shared),
        layers_b=tuple(str(label) for label in record.get("layers_b") or shared),
        heatmaps={
            metric: [_values(row) for row in rows]
            for metric, rows in (record.get("heatmaps") or {}).items()
            if rows is not None  # models of different widths have no dimension-wise map
        },
        diagonal={metric: _values(values) for metric, values in (record.get("diagonal") or {}).items()},
        last={metric: _value(value) for metric, value in record["last"].items()},
        intervals={
            metric: (float(bounds[0]), float(bounds[1]))
            for metric, bounds in (record.get("intervals") or {}).items()
            if bounds is not None and None not in (_value(bounds[0]), _value(bounds[1]))
        },
        chance=_chance(record),
        definitions={metric: str(text) for metric, text in (record.get("definitions") or {}).items()},
        probe_transfer=record.get("probe_transfer"),
        spectrum=tuple(
            (_model(record[side]), values)
            for key in ("spectrum", "spectrum_mean")
            for side in ("a", "b")
            if (values := (record.get(key) or {}).get(side))
        ),
        warnings=tuple(str(warning) for warning in record.get("warnings") or []),
    )


def read_realignment(record: dict[str, Any], path: Path) -> Realignment:
    """Record of a realignment file.

    Raises
    ------
    InputError
        If the file lacks a part that gives its numbers their meaning.
    """
    _require(record, ("name", "run", "against", "probe", "steps", "series"), path)
    series, mean, spectrum = (
        {k: _values(values) for k, values in (record.get(key) or {}).items() if isinstance(values, list)}
        for key in ("series", "series_mean", "spectrum")
    )
    return Realignment(
        name=str(record["name"]),
        run=str(record["run"]),
        against=_model(record["against"]).reference,
        probe=_probe(record["probe"]),
        steps=tuple(int(step) for step in record["steps"]),
        series=series,
        series_mean=mean,
        spectrum=spectrum,
        features=str((record.get("spectrum") or {}).get("features", "")),
        chance=_chance(record),
        warnings=tuple(str(warning) for warning in record.get("warnings") or []),
    )


def comparable(pair: Pair, band: Pair | None) -> bool:
    """Whether the seed band says anything about a pair: same probe texts and rows, same kinds of model.

    Two causal language models are not held against two embedders that differ in the seed.
    """
    if band is None or pair.name == band.name:
        return False
    same_probe = (pair.probe.hash, pair.probe.tokens) == (band.probe.hash, band.probe.tokens)
    return same_probe and {pair.a.attention, pair.b.attention} == {band.a.attention, band.b.attention}


def verdict(pair: Pair, band: Pair | None, metric: str) -> Verdict | None:
    """Where a pair's last layer lies relative to the seed band.

    Parameters
    ----------
    pair, band : Pair
        The pair, and the pair of two seeds whose bootstrap interval is the band.
    metric : str
        A metric both have.

    Returns
    -------
    {"inside", "closer", "farther"} or None
        ``inside``: the pair's interval (its value, where it has none) meets the band; ``closer``: the two
        models are more alike than two seeds; ``farther``: less. None where the band does not apply.
    """
    value = pair.last.get(metric)
    if band is None or value is None or metric not in band.intervals or not comparable(pair, band):
        return None
    low, high = band.intervals[metric]
    below, above = pair.intervals.get(metric, (value, value))
    if below <= high and above >= low:
        return "inside"
    direction = metric_label(metric).higher_is_closer
    if direction is None:
        return None
    return "closer" if (below > high) == direction else "farther"


def _require(record: dict[str, Any], keys: tuple[str, ...], path: Path) -> None:
    lacking = [key for key in keys if key not in record]
    if lacking:
        raise InputError(
            f"lacks {', '.join(lacking)}", where=str(path), todo="analyse again: `rembed analyze`"
        )


def _model(record: dict[str, Any] | str) -> Model:
    if isinstance(record, str):
        return Model(reference=record, attention="")
    return Model(
        reference=str(record.get("reference", record.get("path", "?"))),
        attention=str(record.get("attention", "")),
    )


def _probe(record: dict[str, Any]) -> Probe:
    return Probe(
        kind=str(record.get("kind", "")),
        texts=record.get("texts"),
        rows=record.get("rows"),
        tokens=str(record.get("tokens", "")),
        hash=str(record.get("hash", "")),
    )


def _value(value: Any) -> float | None:
    """A finite number, or None for what could not be computed."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)


def _values(values: list[Any]) -> list[float | None]:
    return [_value(value) for value in values]


def _chance(record: dict[str, Any]) -> dict[str, float | None]:
    return {metric: _value(value) for metric, value in (record.get("chance") or {}).items()}
