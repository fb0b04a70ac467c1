"""``hrsa/track.parquet`` as realignment records: one a series and reference."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reasoning_embedding.errors import InputError

from .reading import chance, definitions, interval, model, probe_set, require, values
from .records import Probe, Realignment

_FINAL = "final norm"
Row = dict[str, Any]


def read_realignment(record: dict[str, Any], path: Path) -> Realignment:
    """Record of a realignment file.

    Raises
    ------
    InputError
        If the file lacks a part that gives its numbers their meaning.
    """
    require(record, ("name", "run", "against", "probe", "steps", "series"), path)
    series, mean, spectrum = (
        {k: values(found) for k, found in (record.get(key) or {}).items() if isinstance(found, list)}
        for key in ("series", "series_mean", "spectrum")
    )
    return Realignment(
        name=str(record["name"]),
        run=str(record["run"]),
        against=model(record["against"]).reference,
        probe=probe_set(record["probe"]),
        steps=tuple(int(step) for step in record["steps"]),
        series=series,
        series_mean=mean,
        spectrum=spectrum,
        features=str((record.get("spectrum") or {}).get("features", "")),
        chance=chance(record),
        warnings=tuple(str(warning) for warning in record.get("warnings") or []),
        intervals={
            metric: [interval(bounds) for bounds in found]
            for metric, found in (record.get("intervals") or {}).items()
        },
        layers=tuple(str(label) for label in record.get("layers") or []),
        series_layers={
            metric: [values(row) for row in rows]
            for metric, rows in (record.get("series_layers") or {}).items()
        },
        definitions=definitions(record),
    )


def read_track(path: Path) -> list[Realignment]:
    """Trajectories of a track file.

    Parameters
    ----------
    path : Path
        A parquet file of ``rembed track``.

    Raises
    ------
    InputError
        If it is no such file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"this is no track: {str(error).splitlines()[0][:120]}",
            where=str(path),
            todo="track the run again",
        ) from error
    lacking = {"run", "step", "against", "layer", "metric", "value"} - set(rows[0] if rows else ())
    if lacking:
        raise InputError(f"lacks {', '.join(sorted(lacking))}", where=str(path), todo="track the run again")
    series: dict[tuple[str, str], list[Row]] = {}
    own: dict[str, list[Row]] = {}
    for row in rows:
        if row["against"] is None:
            own.setdefault(row["run"], []).append(row)
        else:
            series.setdefault((row["run"], row["against"]), []).append(row)
    return [_record(run, against, found, own.get(run, [])) for (run, against), found in series.items()]


def _record(run: str, against: str, rows: list[Row], own: list[Row]) -> Realignment:
    steps = tuple(sorted({row["step"] for row in rows}))
    layers = tuple(dict.fromkeys(row["layer"] for row in rows))
    metrics = tuple(dict.fromkeys(row["metric"] for row in rows))
    at = {(row["metric"], row["step"], row["layer"]): row for row in rows}
    by_layer = {
        metric: [[_value(at.get((metric, step, layer))) for layer in layers] for step in steps]
        for metric in metrics
    }
    last = [row for row in rows if row["layer"] == _FINAL] or rows
    spectra = [row for row in own if row["tokens"] == "mean"]
    spectrum = {
        metric: [_at(spectra, step, metric) for step in steps]
        for metric in dict.fromkeys(row["metric"] for row in spectra)
    }
    return Realignment(
        name=f"{run} v {against}",
        run=run,
        against=f"run:{run}@first" if against == "first" else against,
        probe=Probe("probe", None, max(row["n"] for row in rows), rows[0]["tokens"], rows[0]["probe"]),
        steps=steps,
        series={m: [_value(at.get((m, step, _FINAL))) for step in steps] for m in metrics},
        series_mean={m: [_mean(values) for values in by_layer[m]] for m in metrics},
        spectrum=spectrum,
        features="mean" if spectrum else "",
        chance={row["metric"]: row["chance"] for row in last if row["step"] == steps[-1]},
        warnings=(),
        intervals={m: [_ends(at.get((m, step, _FINAL))) for step in steps] for m in metrics},
        layers=layers,
        series_layers=by_layer,
        definitions={row["metric"]: row["definition"] for row in last},
    )


def _value(row: Row | None) -> float | None:
    return None if row is None else row["value"]


def _ends(row: Row | None) -> tuple[float, float] | None:
    return None if row is None or row["low"] is None or row["high"] is None else (row["low"], row["high"])


def _at(rows: Iterable[Row], step: int, metric: str) -> float | None:
    return next((row["value"] for row in rows if (row["step"], row["metric"]) == (step, metric)), None)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
