"""Comparing representations of models: pairs of an experiment, and runs or series of models step by step."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_embedding import config
from reasoning_embedding.checkpoints import ExperimentFolder, RunFolder, read_provenance
from reasoning_embedding.checkpoints.references import ResolvedModel, resolve, series_of_steps
from reasoning_embedding.checkpoints.run_records import read_settings
from reasoning_embedding.config.references import parse
from reasoning_embedding.config.resolved import differences
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json, require_folder, write_json
from reasoning_embedding.progress import Report

if TYPE_CHECKING:
    import torch

    from reasoning_embedding.distributed import World
    from reasoning_embedding.hrsa.instrument import Checkpoint, Instrument
    from reasoning_embedding.hrsa.trajectory import Against
    from reasoning_embedding.hrsa.weights import ModelWeights


def analyze_pairs(analysis: config.Analysis, folder: ExperimentFolder, report: Report) -> None:
    """Compare every pair of an analysis."""
    from reasoning_embedding.hrsa.pair import compare

    instrument = make_instrument(analysis, folder.hrsa, report)
    for pair in analysis.pairs:
        if pair.name in analysis.seed_pairs:
            check_seed_pair(
                pair.name, *(resolve(reference, folder.path) for reference in (pair.a, pair.b)), report
            )
        a, b = (checkpoint(resolve(reference, folder.path)) for reference in (pair.a, pair.b))
        twin = None if pair.sibling is None else checkpoint(resolve(pair.sibling, folder.path))
        result = compare(pair.name, a, b, instrument, levels=analysis.reference_levels, sibling=twin)
        write_json(folder.pair(pair.name), result, summed=True)
        report(f"pair {pair.name}: done")


def check_seed_pair(name: str, a: ResolvedModel, b: ResolvedModel, report: Report) -> None:
    """Refuse a pair of a seed band whose members differ in more than their seed.

    Members that the experiment itself makes were checked with its file. A model that is no checkpoint of a run cannot be
    checked, which is said.

    Raises
    ------
    InputError
        Naming what differs.
    """
    if all(parse(model.reference).kind != "path" for model in (a, b)):
        return
    settings = [_run_settings(model) for model in (a, b)]
    if not all(settings):
        report(
            f"seed band: whether the members of {name} differ in the seed only cannot be seen from their folders"
        )
        return
    own = ("name", "output_dir", "seed", "logging")
    one, other = ({key: value for key, value in each.items() if key not in own} for each in settings)
    if found := [key for key, *_ in differences(one, other)]:
        raise InputError(
            f"the two differ in {', '.join(found[:5])}",
            where=f"pair {name} of the seed band",
            todo="name pairs whose members differ in the seed only",
        )


def _run_settings(model: ResolvedModel) -> dict[str, Any]:
    """Settings of the run that a checkpoint lies in; empty for any other model."""
    path = Path(model.path)
    run = RunFolder(path.parent.parent)
    if path.parent != run.checkpoints or not run.config_json.is_file():
        return {}
    return read_settings(run)


def follow_runs(analysis: config.Analysis, folder: ExperimentFolder, report: Report) -> None:
    """Follow every trajectory of an analysis; one table, ``hrsa/track.parquet``, holds them all."""
    from reasoning_embedding.hrsa.trajectory import Against, TrackTable, track

    instrument = make_instrument(analysis, folder.hrsa, report)
    table = TrackTable(folder.track)
    for wanted in analysis.realignment:
        named = wanted.run if ":" in wanted.run else f"run:{wanted.run}"
        run = series_of_steps(named, folder.path)
        assert run is not None  # the configuration was checked: it names a run or a stage
        reference = f"{named}@first" if wanted.against == "first" else wanted.against
        models = {
            step: checkpoint(ResolvedModel(f"{wanted.run}@{step}", run.checkpoint(step)))
            for step in run.steps()
        }
        against = Against(reference, {None: checkpoint(resolve(reference, folder.path))})
        table.keep_steps(wanted.name, wanted.run, reference, models)
        track(wanted.run, models, [against], instrument, table, name=wanted.name)
        report(f"realignment {wanted.name}: done")
    table.write()


@dataclass(frozen=True)
class Series:
    """Models of one trajectory.

    Parameters
    ----------
    name : str
        What results call it.
    models : dict of int to str
        Folder, or Hub id with ``@revision``, by step.
    run : RunFolder or None
        The run they belong to.
    """

    name: str
    models: dict[int, str]
    run: RunFolder | None = None

    def chosen(self, steps: str | list[int] | config.EverySteps) -> Series:
        """Return the part that a run's ``hrsa.steps`` names.

        Raises
        ------
        InputError
            If a step is asked for that is not there.
        """
        if isinstance(steps, config.EverySteps):
            kept = [step for step in self.models if step % steps.every == 0 or step == max(self.models)]
        elif isinstance(steps, list):
            kept = steps
        else:
            return self
        if missing := [step for step in kept if step not in self.models]:
            raise InputError(
                f"{self.name} has no step {missing[0]}",
                where="steps",
                todo=f"steps there: {', '.join(map(str, self.models))}",
            )
        return Series(self.name, {step: self.models[step] for step in kept}, self.run)


def series_of(arguments: Sequence[str]) -> list[Series]:
    """Sort folders of runs and of stages that kept steps, each a series of its own, from models, which together are one.

    Raises
    ------
    InputError
        If a run has no checkpoints yet.
    """
    found: list[Series] = []
    models: list[str] = []
    for argument in arguments:
        run = series_of_steps(argument) or RunFolder(Path(argument))  # a stage is a model, and keeps steps
        if not run.checkpoints.is_dir():
            models.append(argument)
            continue
        steps = {step: str(run.checkpoint(step)) for step in run.steps()}
        if not steps:
            raise InputError("the run has no checkpoints yet", where=argument, todo="train it first")
        found.append(Series(run.path.resolve().name, steps, run))
    if models:
        steps = _steps_of(models)
        found.append(Series(_name_of(models), dict(sorted(zip(steps, models, strict=True)))))
    return found


def track_series(
    series: Series,
    settings: config.Tracking,
    report: Report,
    *,
    output: Path | None = None,
    world: World | None = None,
) -> Path:
    """Measure a series against its references and write the tidy parquet file; what is there already stays.

    Parameters
    ----------
    series : Series
        The models.
    settings : config.Tracking
        Steps, references, probe set, rows.
    report : callable
        Takes a line at a time.
    output : Path, optional
        The file; default ``hrsa/track.parquet`` in the run folder, or here for plain models.
    world : World, optional
        Ranks that share the texts.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If a model, a reference or the probe set cannot be used; what was measured before is on disk.
    """
    from reasoning_embedding.hrsa.trajectory import TrackTable, track

    path = output or (series.run or RunFolder(Path())).track
    require_folder(path.parent)
    chosen = series.chosen(settings.steps)
    references = [against(name, series) for name in settings.references]
    instrument = make_instrument(settings, path.parent, report, world)
    table = TrackTable(path)
    instrument.world.barrier()  # every rank has read the table before the main one writes it
    models = {
        step: checkpoint(resolve(model), f"{series.name}@{step}") for step, model in chosen.models.items()
    }
    made = track(series.name, models, references, instrument, table)
    report(f"{series.name}: {made} comparisons measured, {len(table.rows)} rows in {path}")
    return path


def against(reference: str, series: Series) -> Against:
    """Return what a series is held against.

    Parameters
    ----------
    reference : str
        ``first``; ``run:NAME``, ``run:PATH`` or the path of a run folder (step by step); ``run:NAME@STEP``,
        ``lineage:STAGE``, the folder of a model or a Hub id with its revision.
    series : Series
        Names are looked up where its run lies.

    Raises
    ------
    InputError
        If there is no such model.
    """
    from reasoning_embedding.hrsa.trajectory import Against

    if reference == "first":
        step = min(series.models)
        return Against(
            reference, {None: checkpoint(resolve(series.models[step]), f"{series.name}@{step}")}, step
        )
    within = series.run.experiment.path if series.run else None
    run = series_of_steps(reference, within)
    if run is None or parse(reference).kind == "lineage":
        model = resolve(reference, within)
        return Against(reference, {None: checkpoint(model)}, model.step)
    if not run.checkpoints.is_dir():
        raise InputError(f"{reference!r} names no run", where=str(run.path), todo="train it first")
    shared = {step: run.checkpoint(step) for step in run.steps() if step in series.models}
    models = {step: checkpoint(ResolvedModel(f"{reference}@{step}", path)) for step, path in shared.items()}
    return Against(reference, dict(models))


def tracking_of(settings: config.RunConfig, report: Report) -> Callable[[RunFolder], None] | None:
    """Return what measures a run after its last step, or None where it has no ``hrsa`` section.

    The probe set and references that are models are looked at now, so that a wrong name costs no training.

    Raises
    ------
    InputError
        If the probe set cannot be used, or a reference is a path where no model or step is.
    """
    section = settings.hrsa
    if section is None:
        return None
    make_instrument(section, None, report)
    for name in section.references:
        looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
        if looks_local and series_of_steps(name) is None:
            resolve(name)

    def measure(run: RunFolder) -> None:
        if os.environ.get("RANK", "0") != "0":
            return  # the ranks of a job that has ended are connected no more: the main one measures alone
        [series] = series_of([str(run.path)])
        track_series(series, section, report)

    return measure


def make_instrument(
    settings: config.Measuring, folder: Path | None, report: Report, world: World | None = None
) -> Instrument:
    """Read the probe set; kept rows are cached below `folder`, an ``hrsa`` folder.

    Raises
    ------
    InputError
        If the probe set, or a metric of one's own, cannot be used.
    """
    from reasoning_embedding.distributed import World
    from reasoning_embedding.hrsa.cache import ActivationCache
    from reasoning_embedding.hrsa.instrument import Instrument
    from reasoning_embedding.hrsa.metrics.own import check_own_metrics
    from reasoning_embedding.hrsa.probes import load_probe

    check_own_metrics(settings)
    cache = None
    if folder is not None and settings.cache_mib:
        cache = ActivationCache(folder / ".cache", settings.cache_mib)
    return Instrument(load_probe(settings.probe), settings, cache, world or World(), report)


def track_weights(
    series: Series,
    against: str | None,
    report: Report,
    *,
    output: Path | None = None,
    device: str | torch.device = "cpu",
) -> Path:
    """Measure how the weights of a series moved from its first model, or from another, and write ``hrsa/weights.json``.

    Steps measured before are kept, unless their models or the start have changed.

    Parameters
    ----------
    series : Series
        The models.
    against : str, optional
        A model; absent or ``first``: the first of the series.
    report : callable
        Takes lines of progress.
    output : Path, optional
        The JSON file; absent: in the run's folder, or ``weights-NAME.json`` here.
    device : str or torch.device
        Where matrices are decomposed.

    Raises
    ------
    InputError
        If a model cannot be read, or two have tensors of other shapes.
    """
    from reasoning_embedding.hrsa.weights import weight_steps

    models = {step: resolve(reference) for step, reference in series.models.items()}
    start = models[min(models)] if against in (None, "first") else resolve(str(against))
    path = output or (series.run.weight_track if series.run else Path(f"weights-{series.name}.json"))
    record: dict[str, Any] = {"series": series.name, "against": start.reference, "content": start.content}
    before = read_json(path, default={}, todo="delete the file; it is measured again")
    same = before.get("content") is not None and before["content"] == record["content"]
    steps = weight_steps(
        {step: (model.content, partial(open_weights, model)) for step, model in models.items()},
        open_weights(start),
        before.get("steps", []) if same else [],
        report,
        device=device,
    )
    record["steps"] = []
    for step in steps:
        record["steps"].append(step)
        write_json(path, record, summed=True)  # what is measured stays, whatever happens to the rest
    return path


def open_weights(model: ResolvedModel) -> ModelWeights:
    """Return a model's tensors, which are read as they are asked for."""
    from reasoning_embedding.checkpoints.tensors import TensorFolder
    from reasoning_embedding.hrsa.weights import ModelWeights

    return ModelWeights(TensorFolder(model.files))


def checkpoint(model: ResolvedModel, name: str | None = None) -> Checkpoint:
    """Return a model to be measured, with what caches know it by; absent: named as it was referred to."""
    from reasoning_embedding.hrsa.instrument import Checkpoint

    return Checkpoint(model.path, name or model.reference, revision=model.revision, content=model.content)


def _steps_of(models: list[str]) -> list[int]:
    """Steps of plain models: from provenance, else the last number of each name, else their places."""
    steps = [_step_of(model) for model in models]
    known = [step for step in steps if step is not None]
    return known if len(set(known)) == len(models) else list(range(len(models)))


def _step_of(model: str) -> int | None:
    found = resolve(model)
    if found.step is not None:
        return found.step
    record = read_provenance(found.path) if isinstance(found.path, Path) else None
    if record is not None and isinstance(record.get("step"), int):
        return record["step"]
    numbers = re.findall(r"\d+", found.revision or Path(found.path).name)
    return int(numbers[-1]) if numbers else None


def _name_of(models: list[str]) -> str:
    """What the models have in common: their repository, or the folder they lie in."""
    names = {model.partition("@")[0] for model in models}
    if len(names) == 1:
        return names.pop()
    parents = {Path(model).resolve().parent.name for model in models}
    return parents.pop() if len(parents) == 1 else "series"
