"""Comparing the models of an experiment, pair by pair and step by step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from reasoning_embedding import config
from reasoning_embedding.checkpoints import ExperimentFolder
from reasoning_embedding.checkpoints.references import ResolvedModel, resolve, series_of_steps
from reasoning_embedding.files import write_json

if TYPE_CHECKING:
    from reasoning_embedding.distributed import World
    from reasoning_embedding.hrsa.instrument import Checkpoint, Instrument

Report = Callable[[str], None]


def analyze_pairs(analysis: config.Analysis, folder: Path, report: Report) -> None:
    """Compare every pair of an analysis."""
    from reasoning_embedding.hrsa.pair import compare

    instrument = make_instrument(analysis, folder / "hrsa", report)
    for pair in analysis.pairs:
        a, b = (checkpoint(resolve(reference, folder)) for reference in (pair.a, pair.b))
        result = compare(pair.name, a, b, instrument)
        write_json(folder / "hrsa" / "pairs" / f"{pair.name}.json", result)
        report(f"pair {pair.name}: done")


def follow_runs(analysis: config.Analysis, folder: Path, report: Report) -> None:
    """Follow every trajectory of an analysis; one table, ``hrsa/track.parquet``, holds them all."""
    from reasoning_embedding.hrsa.trajectory import Against, TrackTable, track

    instrument = make_instrument(analysis, folder / "hrsa", report)
    table = TrackTable(ExperimentFolder(folder).track)
    for wanted in analysis.realignment:
        named = wanted.run if ":" in wanted.run else f"run:{wanted.run}"
        run = series_of_steps(named, folder)
        assert run is not None  # the configuration was checked: it names a run or a stage
        reference = f"{named}@first" if wanted.against == "first" else wanted.against
        models = {
            step: checkpoint(ResolvedModel(f"{wanted.run}@{step}", run.checkpoint(step)))
            for step in run.steps()
        }
        against = Against(reference, {None: checkpoint(resolve(reference, folder))})
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


def checkpoint(model: ResolvedModel, name: str | None = None) -> Checkpoint:
    """Return a model to be measured, with what caches know it by; absent: named as it was referred to."""
    from reasoning_embedding.hrsa.instrument import Checkpoint

    return Checkpoint(model.path, name or model.reference, revision=model.revision, content=model.content)
