"""A trajectory as tidy rows: one row a step, reference, layer and metric."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reasoning_embedding.errors import InputError

from .capture import FINAL
from .comparison import Comparison
from .instrument import Instrument
from .measure import finite
from .side import Checkpoint, Reader, Side, limited_threads
from .spectral_records import features, spectrum_metrics

#: Columns of a track. ``against`` is null for what a model has by itself (its spectrum); ``low`` and ``high`` end
#: the 95 % interval over texts, where there is one; the last three say what a row was measured from.
SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("step", pa.int64()),
        ("against", pa.string()),
        ("against_step", pa.int64()),
        ("layer", pa.string()),
        ("metric", pa.string()),
        *((name, pa.float64()) for name in ("value", "low", "high", "chance")),
        ("n", pa.int64()),
        *((name, pa.string()) for name in ("tokens", "probe", "definition")),
        *((name, pa.string()) for name in ("content", "against_content", "settings")),
    ]
)
#: Settings that move no number, and those that move none where steps have quick intervals only.
_NO_NUMBER = {
    *("threads", "cache_mib", "memory_mib"),
    *("steps", "against", "pairs", "realignment", "seed_band"),
}
_OF_ALL_INTERVALS = {"intervals", "bootstrap"}

Row = dict[str, Any]


@dataclass(frozen=True)
class Against:
    """What a run is held against.

    Parameters
    ----------
    name : str
        As the user wrote it.
    checkpoints : mapping of int or None to Checkpoint
        By step; under None the one model that every step is held against.
    """

    name: str
    checkpoints: Mapping[int | None, Checkpoint]
    step: int | None = None

    def at(self, step: int) -> tuple[int | None, Checkpoint] | None:
        """Return what a step is held against and its own step; None where a sibling has no such step."""
        if None in self.checkpoints:
            return self.step, self.checkpoints[None]
        return (step, self.checkpoints[step]) if step in self.checkpoints else None


class TrackTable:
    """Rows of a track file, which is written anew, and whole, after every step.

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
        self.rows: list[Row] = []
        if path.exists():
            try:
                self.rows = pq.read_table(path).cast(SCHEMA).to_pylist()
            except (pa.ArrowException, ValueError, OSError) as error:
                raise InputError(
                    f"this is no track: {str(error).splitlines()[0][:120]}",
                    where=str(path),
                    todo="move the file away",
                ) from error

    def holds(self, key: Row, made_from: Row) -> bool:
        """Whether rows of (run, step, against) are there, measured from the same models and settings."""
        known = [row for row in self.rows if _is(row, key)]
        return (
            bool(known)
            and None not in (made_from["content"], made_from["settings"])
            and _is(known[0], made_from)
        )

    def replace(self, key: Row, rows: Sequence[Row]) -> None:
        """Put rows in the place of those of the same (run, step, against)."""
        self.rows = [row for row in self.rows if not _is(row, key)] + list(rows)

    def write(self) -> None:
        """Write the file through a temporary sibling, sorted by run, reference and step."""
        self.rows.sort(key=lambda row: (row["run"], row["against"] or "", row["step"]))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.partial")
        pq.write_table(pa.Table.from_pylist(self.rows, schema=SCHEMA), partial, compression="zstd")
        partial.replace(self.path)


def track(
    run: str,
    checkpoints: Mapping[int, Checkpoint],
    references: Sequence[Against],
    instrument: Instrument,
    table: TrackTable,
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

    Returns
    -------
    int
        Comparisons that were made.

    Raises
    ------
    InputError
        If a checkpoint cannot be read or compared; what was measured before is on disk.
    """
    made = 0
    settings = settings_hash(instrument)
    with limited_threads(instrument.settings):
        for reference in references:
            base: tuple[Reader, Side | None] | None = None
            for step in sorted(checkpoints):
                target, model = reference.at(step), checkpoints[step]
                if target is None:
                    instrument.report(f"{run}: {reference.name} has no step {step}")
                    continue
                key = {"run": run, "step": step, "against": reference.name}
                made_from = {
                    "content": model.content,
                    "against_content": target[1].content,
                    "settings": settings,
                }
                if table.holds(key, made_from):
                    continue
                if base is None or base[0].checkpoint != target[1]:
                    base = instrument.open(target[1]), None
                sides = instrument.sides(base[0], instrument.open(model, like=base[0]), base[1])
                base = base[0], sides.a
                pair = Comparison(sides, instrument.probe, instrument.settings)
                table.replace(key, _rows(pair, {**key, "against_step": target[0], **made_from}))
                own = {**key, "against": None}
                table.replace(own, _own_rows(pair, {**own, **made_from, "against_content": None}))
                made += 1
                if instrument.world.is_main:
                    table.write()
                cka = finite(pair.last.metrics.get("cka"))
                instrument.report(f"{run} step {step} against {reference.name}: cka {cka} at the final norm")
    return made


def settings_hash(instrument: Instrument) -> str:
    """Hash of the probe set and of every setting that moves a number."""
    left_out = {
        *_NO_NUMBER,
        "probe",
        *(_OF_ALL_INTERVALS if instrument.settings.intervals == "quick" else ()),
    }
    dumped = instrument.settings.model_dump(mode="json")
    settings = {key: value for key, value in dumped.items() if key not in left_out}
    return hashlib.sha256(json.dumps([instrument.probe.hash, settings], sort_keys=True).encode()).hexdigest()


def _rows(pair: Comparison, common: Row) -> list[Row]:
    """Every metric of every matched layer; intervals at the final norm."""
    found = []
    for (_, label), layer in zip(pair.labels, pair.along, strict=True):
        ends = pair.step_intervals[0] if layer is pair.last else {}
        for name, metric in layer.metrics.items():
            low, high = ends.get(name, (None, None))
            found.append(
                {
                    **common,
                    "layer": label,
                    "metric": name,
                    "value": metric.value,
                    "low": low,
                    "high": high,
                    "chance": metric.chance,
                    "n": metric.n,
                    "tokens": pair.a.sample.tokens,
                    "probe": pair.probe.hash,
                    "definition": metric.definition,
                }
            )
    return found


def _own_rows(pair: Comparison, common: Row) -> list[Row]:
    """Spectra of the model's features at the final norm: of its texts' last tokens, and of their means."""
    return [
        {
            **common,
            "layer": FINAL,
            "metric": name,
            "value": metric.value,
            "n": metric.n,
            "tokens": rule,
            "probe": pair.probe.hash,
            "definition": metric.definition,
        }
        for rule in ("last", "mean")
        for name, metric in spectrum_metrics(features(pair.b, rule))[0].items()
    ]


def _is(row: Row, values: Row) -> bool:
    return all(row.get(name) == value for name, value in values.items())
