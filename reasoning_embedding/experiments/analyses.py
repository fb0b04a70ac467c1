"""Comparing the models of an experiment, pair by pair and step by step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder, content_hash
from reasoning_embedding.checkpoints.references import resolve, series_folder
from reasoning_embedding.files import write_json

if TYPE_CHECKING:
    from reasoning_embedding.distributed import World
    from reasoning_embedding.hrsa.instrument import Instrument
    from reasoning_embedding.hrsa.side import Checkpoint

Report = Callable[[str], None]


def analyze_pairs(analysis: config.Analysis, folder: Path, report: Report) -> None:
    """Compare every pair of an analysis."""
    from reasoning_embedding.hrsa.pair import compare

    instrument = make_instrument(analysis, folder / "hrsa", report)
    for pair in analysis.pairs:
        a, b = (checkpoint(resolve(reference, folder), reference) for reference in (pair.a, pair.b))
        result = compare(pair.name, a, b, instrument)
        write_json(folder / "hrsa" / "pairs" / f"{pair.name}.json", result)
        report(f"pair {pair.name}: done")


def follow_runs(analysis: config.Analysis, folder: Path, report: Report) -> None:
    """Follow every trajectory of an analysis; one table, ``hrsa/track.parquet``, holds them all."""
    from reasoning_embedding.hrsa.trajectory import Against, TrackTable, track

    instrument = make_instrument(analysis, folder / "hrsa", report)
    table = TrackTable(RunFolder(folder).track)
    for wanted in analysis.realignment:
        run = series_folder(wanted.run, folder)
        named = wanted.run if ":" in wanted.run else f"run:{wanted.run}"
        reference = f"{named}@first" if wanted.against == "first" else wanted.against
        models = {step: checkpoint(run.checkpoint(step), f"{wanted.run}@{step}") for step in run.steps()}
        against = Against(reference, {None: checkpoint(resolve(reference, folder), reference)})
        table.keep_steps(wanted.name, wanted.run, reference, models)
        track(wanted.run, models, [against], instrument, table, name=wanted.name)
        report(f"realignment {wanted.name}: done")
    table.write()


def make_instrument(
    settings: config.Measuring, folder: Path | None, report: Report, world: World | None = None
) -> Instrument:
    """Read the probe set; kept rows are cached below `folder`, an ``hrsa`` folder.

    Raises
    ------
    InputError
        If the probe set cannot be used.
    """
    from reasoning_embedding.distributed import World
    from reasoning_embedding.hrsa.cache import ActivationCache
    from reasoning_embedding.hrsa.instrument import Instrument
    from reasoning_embedding.hrsa.probes import load_probe

    cache = None
    if folder is not None and settings.cache_mib:
        cache = ActivationCache(folder / ".cache", settings.cache_mib)
    return Instrument(load_probe(settings.probe), settings, cache, world or World(), report)


def checkpoint(path: Path, reference: str) -> Checkpoint:
    """Return a local model with the hash of its content, by which caches know it."""
    from reasoning_embedding.hrsa.side import Checkpoint

    return Checkpoint(path, reference, content=content_hash(path))
