"""Trajectories: how models move step by step, as one tidy table that is written, resumed and read in one place.

A row of ``hrsa/track.parquet`` is one metric of one layer at one step of one trajectory. Runs, lineages, experiments and
merges all write it (:func:`track`) and every page reads it (:func:`read_trajectories`). Experiments of older versions
left ``hrsa/realignment/*.json`` instead, which are read as well.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reasoning_embedding.checkpoints.layout import ExperimentFolder
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_file, read_json
from reasoning_embedding.isolation import threads

from .forward import FINAL
from .instrument import Checkpoint, Instrument, ModelStates, OpenModel
from .measure import finite, measure_spectrum, merged_warnings
from .pair import Comparison, features

#: Columns of the table. ``against`` is null for what a model has by itself (its spectrum); ``low`` and ``high`` end
#: the 95 % interval over texts, and ``no_interval`` says why there is none where one was asked for; ``warnings`` are
#: those of the whole step; ``content``, ``against_content`` and ``settings`` say what a row was measured from.
SCHEMA = pa.schema(
    [
        ("trajectory", pa.string()),
        ("run", pa.string()),
        ("step", pa.int64()),
        ("against", pa.string()),
        ("against_step", pa.int64()),
        ("layer", pa.string()),
        ("metric", pa.string()),
        *((name, pa.float64()) for name in ("value", "low", "high")),
        ("no_interval", pa.string()),
        ("chance", pa.float64()),
        ("n", pa.int64()),
        *((name, pa.string()) for name in ("tokens", "probe", "probe_kind")),
        *((name, pa.int64()) for name in ("probe_texts", "probe_rows", "skipped")),
        ("effective_rows", pa.float64()),
        ("definition", pa.string()),
        ("warnings", pa.list_(pa.string())),
        *((name, pa.string()) for name in ("content", "against_content", "settings")),
    ]
)
#: Columns that files of older versions lack.
_NEWER = {
    *("trajectory", "no_interval", "probe_kind", "probe_texts", "probe_rows", "warnings"),
    *("skipped", "effective_rows"),
}
#: Settings that move no number, and those that move none where steps have quick intervals only.
_NO_NUMBER = {
    *("threads", "cache_mib", "memory_mib"),
    *("steps", "against", "pairs", "realignment", "seed_band"),
}
_OF_ALL_INTERVALS = {"intervals", "bootstrap"}

Row = dict[str, Any]
#: Values by step, None where a metric does not exist.
Values = list[float | None]


@dataclass(frozen=True)
class ProbeSummary:
    """The texts that models were measured on, as results name them.

    Parameters
    ----------
    kind : str
        Kind of the probe set.
    texts, rows : int or None
        Texts, and rows that linear metrics used; None where it is not known.
    tokens : str
        What a row is: ``all`` tokens, the ``last``, or the ``mean`` of a text.
    hash : str
        Of texts and labels.
    skipped : int
        Leading tokens of every text that were no rows.
    """

    kind: str
    texts: int | None
    rows: int | None
    tokens: str
    hash: str
    skipped: int = 0

    def __str__(self) -> str:
        parts = [self.kind]
        if self.texts is not None:
            parts.append(f"{self.texts} texts")
        if self.rows is not None:
            parts.append(f"{self.rows} rows")
        every = f"all tokens but the first {self.skipped} of a text" if self.skipped else "all tokens"
        parts.append({"all": every, "last": "last token", "mean": "text means"}.get(self.tokens, self.tokens))
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class MeasuredTrajectory:
    """One run against one reference, step by step.

    Parameters
    ----------
    name : str
        The trajectory's own name.
    run, against : str
        What moves, and what it is compared with (``run:NAME@first`` for its own first step).
    probe : ProbeSummary
        Texts.
    steps : tuple of int
        Ascending.
    series : dict of str to list
        Each metric after the final norm, by step.
    series_mean : dict of str to list
        Each metric as the mean over layers, by step.
    spectrum : dict of str to list
        Spectral metrics of the run's own features, by step.
    features : str
        What the spectrum was taken of: the texts' ``last`` tokens or their ``mean``; empty without one.
    chance : dict of str to float or None
        Chance level of each metric after the final norm.
    warnings : tuple of str
        What makes numbers less than they seem, with the steps it holds for.
    intervals : dict of str to list
        Ends of the 95 % interval of each entry of `series`, or None.
    layers : tuple of str
        Labels, in order.
    series_layers : dict of str to list of list
        Each metric by step and layer.
    definitions : dict of str to str
        What each metric is.
    """

    name: str
    run: str
    against: str
    probe: ProbeSummary
    steps: tuple[int, ...]
    series: dict[str, Values]
    series_mean: dict[str, Values]
    spectrum: dict[str, Values]
    features: str
    chance: dict[str, float | None]
    warnings: tuple[str, ...]
    intervals: dict[str, list[tuple[float, float] | None]] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    series_layers: dict[str, list[Values]] = field(default_factory=dict)
    definitions: dict[str, str] = field(default_factory=dict)


# Reading


def find_trajectories(folder: Path) -> list[MeasuredTrajectory]:
    """Read the trajectories below the ``hrsa`` folder of a run, an experiment or a merge; none where there are none.

    Where an experiment of an older version was measured again, the table's trajectory takes the place of the JSON file's.

    Raises
    ------
    InputError
        If a file is damaged.
    """
    paths = ExperimentFolder(folder)
    found = read_trajectories(paths.track) if paths.track.exists() else []
    names = {one.name for one in found}
    known = {(one.run, one.against, one.probe.hash) for one in found}
    older = [one for path in sorted(paths.realignments.glob("*.json")) for one in read_trajectories(path)]
    return [
        *found,
        *(o for o in older if o.name not in names and (o.run, o.against, o.probe.hash) not in known),
    ]


def read_trajectories(path: Path) -> list[MeasuredTrajectory]:
    """Read the trajectories of one file.

    Parameters
    ----------
    path : Path
        A table (``track.parquet``), or the JSON file in which an experiment of an older version kept one trajectory.

    Raises
    ------
    InputError
        If it is no such file, or lacks a part that gives its numbers their meaning.
    """
    if path.suffix == ".json":
        return [_of_json(read_json(path), path)]
    rows = _read_rows(path)
    series: dict[tuple[str, str, str], list[Row]] = {}
    own: dict[str, list[Row]] = {}
    for row in rows:
        if row["against"] is None:
            own.setdefault(row["run"], []).append(row)
        else:
            series.setdefault((row["trajectory"], row["run"], row["against"]), []).append(row)
    return [_of_rows(*key, found, own.get(key[1], [])) for key, found in series.items()]


def _read_rows(path: Path) -> list[Row]:
    """Rows of a table; what older files lack is null, and a trajectory without a name gets one."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        for name in _NEWER - set(table.column_names):
            column = pa.nulls(len(table), SCHEMA.field(name).type)
            table = table.append_column(SCHEMA.field(name), column)
        rows = table.select(SCHEMA.names).cast(SCHEMA).to_pylist()
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise InputError(
            f"this is no track: {str(error).splitlines()[0][:120]}",
            where=str(path),
            todo="move the file away and track again",
        ) from error
    for row in rows:
        if row["trajectory"] is None and row["against"] is not None:
            row["trajectory"] = _default_name(row["run"], row["against"])
    return rows


def _default_name(run: str, against: str) -> str:
    return f"{run} v {against}"


def _of_rows(name: str, run: str, against: str, rows: list[Row], own: list[Row]) -> MeasuredTrajectory:
    steps = tuple(sorted({row["step"] for row in rows}))
    layers = tuple(dict.fromkeys(row["layer"] for row in rows))
    metrics = tuple(dict.fromkeys(row["metric"] for row in rows))
    at = {(row["metric"], row["step"], row["layer"]): row for row in rows}
    by_layer = {
        metric: [[_value_of(at.get((metric, step, layer))) for layer in layers] for step in steps]
        for metric in metrics
    }
    last = [row for row in rows if row["layer"] == FINAL] or rows
    spectra = {(row["metric"], row["step"]): row for row in own if row["tokens"] == "mean"}
    spectrum = {
        metric: [_value_of(spectra.get((metric, step))) for step in steps]
        for metric in dict.fromkeys(metric for metric, _ in spectra)
    }
    of_step = {row["step"]: row["warnings"] or [] for row in rows}
    return MeasuredTrajectory(
        name=name,
        run=run,
        against=f"run:{run}@first" if against == "first" else against,
        probe=_probe_of(rows),
        steps=steps,
        series={m: [_value_of(at.get((m, step, FINAL))) for step in steps] for m in metrics},
        series_mean={m: [_mean(values) for values in by_layer[m]] for m in metrics},
        spectrum=spectrum,
        features="mean" if spectrum else "",
        chance={row["metric"]: row["chance"] for row in last if row["step"] == steps[-1]},
        warnings=tuple(merged_warnings((f"step {step}", text) for step in steps for text in of_step[step])),
        intervals={m: [_ends_of(at.get((m, step, FINAL))) for step in steps] for m in metrics},
        layers=layers,
        series_layers=by_layer,
        definitions={row["metric"]: row["definition"] for row in last},
    )


def _probe_of(rows: list[Row]) -> ProbeSummary:
    first = rows[0]
    known = first["probe_rows"] if first["probe_rows"] is not None else max(row["n"] for row in rows)
    return ProbeSummary(
        first["probe_kind"] or "probe",
        first["probe_texts"],
        known,
        first["tokens"],
        first["probe"],
        first["skipped"] or 0,
    )


def _value_of(row: Row | None) -> float | None:
    return None if row is None else row["value"]


def _ends_of(row: Row | None) -> tuple[float, float] | None:
    return None if row is None or row["low"] is None or row["high"] is None else (row["low"], row["high"])


def _mean(values: Values) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _of_json(record: dict[str, Any], path: Path) -> MeasuredTrajectory:
    """Trajectory of a JSON file of an older version."""
    needed = ("name", "run", "against", "probe", "steps", "series")
    if lacking := [key for key in needed if key not in record]:
        raise InputError(
            f"lacks {', '.join(lacking)}", where=str(path), todo="run the experiment's analysis again"
        )
    against, probe, spectrum = record["against"], record["probe"], record.get("spectrum") or {}
    if isinstance(against, dict):
        against = against.get("reference", against.get("path", "?"))
    return MeasuredTrajectory(
        name=str(record["name"]),
        run=str(record["run"]),
        against=str(against),
        probe=ProbeSummary(
            kind=str(probe.get("kind", "")),
            texts=probe.get("texts"),
            rows=probe.get("rows"),
            tokens=str(probe.get("tokens", "")),
            hash=str(probe.get("hash", "")),
        ),
        steps=tuple(int(step) for step in record["steps"]),
        series=_series(record["series"]),
        series_mean=_series(record.get("series_mean") or {}),
        spectrum=_series({key: values for key, values in spectrum.items() if isinstance(values, list)}),
        features=str(spectrum.get("features", "")),
        chance={metric: _finite(value) for metric, value in (record.get("chance") or {}).items()},
        warnings=tuple(str(warning) for warning in record.get("warnings") or []),
        intervals={
            metric: [_ends(bounds) for bounds in values]
            for metric, values in (record.get("intervals") or {}).items()
        },
        layers=tuple(str(label) for label in record.get("layers") or []),
        series_layers={
            metric: [_numbers(row) for row in rows]
            for metric, rows in (record.get("series_layers") or {}).items()
        },
        definitions={metric: str(text) for metric, text in (record.get("definitions") or {}).items()},
    )


def _series(record: dict[str, list[Any]]) -> dict[str, Values]:
    return {name: _numbers(values) for name, values in record.items()}


def _numbers(values: list[Any]) -> Values:
    return [_finite(value) for value in values]


def _finite(value: Any) -> float | None:
    """A finite number, or None for what could not be computed."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)


def _ends(bounds: list[Any] | None) -> tuple[float, float] | None:
    low, high = (_finite(end) for end in bounds or (None, None))
    return None if low is None or high is None else (low, high)


# Measuring


@dataclass(frozen=True)
class Against:
    """What a run is compared with.

    Parameters
    ----------
    name : str
        As the user wrote it.
    checkpoints : mapping of int or None to Checkpoint
        By step; under None the one model that every step is compared with.
    """

    name: str
    checkpoints: Mapping[int | None, Checkpoint]
    step: int | None = None

    def at(self, step: int) -> tuple[int | None, Checkpoint] | None:
        """Return what a step is compared with and its own step; None where a sibling has no such step."""
        if None in self.checkpoints:
            return self.step, self.checkpoints[None]
        return (step, self.checkpoints[step]) if step in self.checkpoints else None


class TrackTable:
    """Rows of a track file, written again as a whole after every step.

    Parameters
    ----------
    path : Path
        A parquet file; it need not exist.

    Raises
    ------
    InputError
        If there is a file that is no track.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = _read_rows(path) if path.exists() else []

    def holds(self, key: Row, made_from: Row) -> bool:
        """Whether rows of (trajectory, run, step, against) are there, measured from the same models and settings."""
        known = [row for row in self.rows if _is(row, key)]
        return (
            bool(known)
            and None not in (made_from["content"], made_from["settings"])
            and _is(known[0], made_from)
        )

    def replace(self, key: Row, rows: Sequence[Row]) -> None:
        """Put rows in the place of those of the same (trajectory, run, step, against)."""
        self.rows = [row for row in self.rows if not _is(row, key)] + list(rows)

    def keep_steps(self, name: str, run: str, against: str, steps: Container[int]) -> None:
        """Forget what a trajectory was before: another run or reference, and steps that are no longer there."""
        self.rows = [
            row
            for row in self.rows
            if row["trajectory"] != name
            or ((row["run"], row["against"]) == (run, against) and row["step"] in steps)
        ]

    def write(self) -> None:
        """Write the file through a temporary sibling, sorted by run, reference and step."""
        self.rows.sort(key=lambda row: (row["run"], row["against"] or "", row["step"]))
        with atomic_file(self.path) as partial:
            table = pa.Table.from_pylist(self.rows, schema=SCHEMA)
            pq.write_table(table, partial, compression="zstd", write_page_checksum=True)


def track(
    run: str,
    checkpoints: Mapping[int, Checkpoint],
    references: Sequence[Against],
    instrument: Instrument,
    table: TrackTable,
    *,
    name: str | None = None,
) -> int:
    """Measure the steps of a run against references; what a table holds already is not measured again.

    Parameters
    ----------
    run : str
        What the user calls the run.
    checkpoints : mapping of int to Checkpoint
        By step.
    references : sequence of Against
        What to compare with.
    instrument : Instrument
        Probe set, settings, cache, ranks.
    table : TrackTable
        Where rows go; the main rank writes it after every step.
    name : str, optional
        The trajectory's name; default: the run and what it is compared with.

    Returns
    -------
    int
        Comparisons that were made.

    Raises
    ------
    InputError
        If there are no checkpoints, or one cannot be read or compared; what was measured before is on disk.
    """
    if not checkpoints:
        raise InputError("the run has no checkpoints", where=run, todo="train it first")
    made = 0
    settings = _settings_hash(instrument)
    with threads(instrument.settings.threads):
        for reference in references:
            base: tuple[OpenModel, ModelStates | None] | None = None
            for step in sorted(checkpoints):
                target, model = reference.at(step), checkpoints[step]
                if target is None:
                    instrument.report(f"{run}: {reference.name} has no step {step}")
                    continue
                key = {
                    "trajectory": name or _default_name(run, reference.name),
                    "run": run,
                    "step": step,
                    "against": reference.name,
                }
                made_from = {
                    "content": model.content,
                    "against_content": target[1].content,
                    "settings": settings,
                }
                if table.holds(key, made_from):
                    continue
                if base is None or base[0].checkpoint != target[1]:
                    base = instrument.open(target[1]), None
                # The reference alone says which rows are kept, so that steps measured on another day have the same.
                sample = base[1].sample if base[1] else instrument.sample(base[0])
                other = instrument.open(model, like=base[0])
                states = instrument.states(base[0], other, base[1], sample=sample)
                base = base[0], states.a
                every = instrument.settings.intervals == "all"
                pair = Comparison(states, instrument.probe, instrument.settings, every_interval=every)
                table.replace(key, _rows(pair, {**key, "against_step": target[0], **made_from}))
                own = {**key, "trajectory": None, "against": None}
                table.replace(own, _own_rows(pair, {**own, **made_from, "against_content": None}))
                made += 1
                if instrument.world.is_main:
                    table.write()
                cka = finite(pair.last.metrics.get("cka"))
                instrument.report(f"{run} step {step} against {reference.name}: cka {cka} at the final norm")
    return made


def _settings_hash(instrument: Instrument) -> str:
    """Hash of the probe set and of every setting that moves a number."""
    left_out = {
        *_NO_NUMBER,
        "probe",
        *(_OF_ALL_INTERVALS if instrument.settings.intervals == "quick" else ()),
    }
    dumped = instrument.settings.model_dump(mode="json")
    settings = {key: value for key, value in dumped.items() if key not in left_out}
    # Without metrics of one's own the hash is that of before there were any; where their files lie moves no number.
    own = [
        {**metric, "function": metric["function"].rpartition("/")[2]} for metric in settings.pop("metrics")
    ]
    settings |= {"metrics": own} if own else {}
    return hashlib.sha256(json.dumps([instrument.probe.hash, settings], sort_keys=True).encode()).hexdigest()


def _rows(pair: Comparison, common: Row) -> list[Row]:
    """Every metric of every matched layer; intervals at the final norm."""
    intervals = pair.intervals()
    common = {**common, **_described(pair), "tokens": pair.a.sample.tokens}
    common["warnings"] = [*_said(pair), *pair.without_interval()]
    found = []
    for (_, label), layer in zip(pair.labels, pair.along, strict=True):
        ends = intervals if layer is pair.last else {}
        for name in filter(layer.metrics.__contains__, pair.names):
            metric, (low, high) = layer.metrics[name], ends.get(name, (None, None))
            found.append(
                {
                    **common,
                    "layer": label,
                    "metric": name,
                    "value": metric.value,
                    "low": low,
                    "high": high,
                    "no_interval": metric.no_interval,
                    "chance": metric.chance,
                    "n": metric.n,
                    "effective_rows": metric.effective_rows,
                    "definition": metric.definition,
                }
            )
    return found


def _own_rows(pair: Comparison, common: Row) -> list[Row]:
    """Spectra of the model's features at the final norm: of its texts' last tokens, and of their means."""
    return [
        {
            **common,
            **_described(pair),
            "layer": FINAL,
            "metric": name,
            "value": metric.value,
            "n": metric.n,
            "tokens": rule,
            "definition": metric.definition,
        }
        for rule in ("last", "mean")
        for name, metric in measure_spectrum(features(pair.b, rule)).metrics.items()
    ]


def _described(pair: Comparison) -> Row:
    probe = pair.probe
    return {
        "probe": probe.hash,
        "probe_kind": probe.kind,
        "probe_texts": len(probe.texts),
        "probe_rows": pair.n,
        "skipped": pair.a.sample.skipped,
    }


def _said(pair: Comparison) -> list[str]:
    """Warnings of one step: a layer's own without its name, others with their subject."""
    layers = {label for label, _ in pair.labels}
    return [text if place in layers else f"{place}: {text}" for place, text in pair.warnings()]


def _is(row: Row, values: Row) -> bool:
    return all(row.get(name) == value for name, value in values.items())
