"""HRSA records: how its JSON files are read, and how a pair stands to the seed band."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.trajectory import ProbeSummary
from reasoning_embedding.hrsa.uncertainty.equivalence import Equivalence, equivalence_of_estimate

from .labels import metric_label
from .records import Band, Model, Pair

#: Half the width of a 95 % interval in standard errors.
_HALF = 1.959964


@dataclass(frozen=True)
class Verdict:
    """How a pair stands to the seed band: two one-sided tests of equivalence.

    Parameters
    ----------
    word : {"equivalent", "closer", "farther", "undecided"}
        ``equivalent``: both tests reject at 5 %, so it lies within the band; ``closer`` and ``farther``: the whole
        95 % interval lies outside, and the models are more or less alike than two seeds; else ``undecided``.
    test : Equivalence
        Of the value less the middle of the band, against half the band's width.
    """

    word: Literal["equivalent", "closer", "farther", "undecided"]
    test: Equivalence


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
            metric: ends
            for metric, bounds in (record.get("intervals") or {}).items()
            if (ends := _ends(bounds)) is not None
        },
        chance=_chance(record),
        definitions=_definitions(record),
        probe_transfer=record.get("probe_transfer"),
        spectrum=tuple(
            (_model(record[side]), values)
            for key in ("spectrum", "spectrum_mean")
            for side in ("a", "b")
            if (values := (record.get(key) or {}).get(side))
        ),
        warnings=tuple(str(warning) for warning in record.get("warnings") or []),
    )


def verdict(pair: Pair, band: Band | None, metric: str) -> Verdict | None:
    """Test whether a pair's last layer lies within the seed band.

    Parameters
    ----------
    pair : Pair
        Not tested where it is itself part of the band.
    band : Band or None
        What a change of seed does.
    metric : str
        A metric of both.

    Returns
    -------
    Verdict or None
        None where either has no interval, the metric no direction, or the band does not apply.

    Notes
    -----
    The standard error is that of a normal estimate with the pair's interval, with texts less one degrees of freedom.
    """
    value, bounds = pair.last.get(metric), pair.intervals.get(metric)
    direction = metric_label(metric).higher_is_closer
    if band is None or value is None or bounds is None or direction is None:
        return None
    if pair in band.pairs or not band.like(pair):
        return None
    low, high = band.ends(metric) or (0.0, 0.0)
    if not low < high:
        return None
    test = equivalence_of_estimate(
        value - (low + high) / 2,
        (bounds[1] - bounds[0]) / (2 * _HALF),
        max(1, (pair.probe.texts or 2) - 1),
        (high - low) / 2,
        method="bootstrap",
        n=pair.probe.texts or 0,
    )
    if test.place == "within":
        return Verdict("equivalent", test)
    if test.place == "open":
        return Verdict("undecided", test)
    return Verdict("closer" if (test.estimate > 0) == direction else "farther", test)


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


def _probe(record: dict[str, Any]) -> ProbeSummary:
    return ProbeSummary(
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


def _ends(bounds: list[Any] | None) -> tuple[float, float] | None:
    low, high = (_value(end) for end in bounds or (None, None))
    return None if low is None or high is None else (low, high)


def _definitions(record: dict[str, Any]) -> dict[str, str]:
    return {metric: str(text) for metric, text in (record.get("definitions") or {}).items()}
