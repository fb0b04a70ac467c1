"""Merges of a configuration: made, scored and held against their models, once each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder, atomic_write, write_json
from reasoning_embedding.errors import InputError

from .analyses import checkpoint, make_instrument
from .evaluations import query_template
from .references import pick_step
from .tracking import series_of

if TYPE_CHECKING:
    from reasoning_embedding.merging.merge import Models

Report = Callable[[str], None]
#: What a merge's folder says of itself; written last.
RECORD = "merge.json"


@dataclass(frozen=True)
class Point:
    """One merge of a configuration: its name, its method and, along a path, its place."""

    name: str
    method: config.MergeMethod
    t: float | None = None


def run_merge(
    settings: config.MergeConfig, *, text: str | None = None, report: Report = print
) -> dict[str, Any]:
    """Make, score and analyse what a configuration describes; what is done already is kept.

    Parameters
    ----------
    settings : config.MergeConfig
        What to merge.
    text : str, optional
        The configuration as written, kept in the folder.
    report : callable
        Takes lines of progress.

    Returns
    -------
    dict
        What ``merge.json`` holds: ``name``, ``models`` (what the user calls them), ``points`` (one a merge: ``name``,
        ``method``, ``t``, ``model``, ``report``, ``summary``, ``warnings``, ``scores`` (a task's entry each) and
        ``similarity`` (model -> metric -> value, low, high at the final norm)), ``tokens`` and ``probe`` of the
        analysis, and ``failed`` tasks.

    Raises
    ------
    InputError
        If a model is missing, damaged or does not fit the others, or a task or the probe set cannot be used.

    Notes
    -----
    Merges are known again by the content of their models and their parameters, scores by the content of the merge,
    similarities by the content of both sides: a call that was stopped goes on.
    """
    from reasoning_embedding.merging.merge import merge, open_models

    folder = Path(settings.output_dir) / settings.name
    named = models_of(settings)
    reference = getattr(settings.method, "base", None)
    base = (reference, folder_of(reference)) if reference else None
    points = points_of(settings)
    with open_models(named, base) as models:
        _write_settings(settings, text, folder)
        records = []
        for point in points:
            model, file = folder / "models" / point.name, folder / "reports" / f"{point.name}.json"
            found = merge(models, point.method, model, file)
            report(f"{point.name}: {'merged' if found['made'] else 'there already'}{_said(found['summary'])}")
            records.append(
                {
                    "name": point.name,
                    "method": point.method.kind,
                    "t": point.t,
                    "model": model.relative_to(folder).as_posix(),
                    "report": file.relative_to(folder).as_posix(),
                    "summary": found["summary"],
                    "warnings": found["warnings"],
                }
            )
        record: dict[str, Any] = {
            "name": settings.name,
            "models": [name for name, _ in named],
            "points": records,
            "failed": [],
        }
        if settings.evaluation is not None:
            _evaluate(settings, settings.evaluation, folder, record, named[0][1], report)
        if settings.analysis is not None:
            _analyze(settings.analysis, folder, record, models, report)
    write_json(folder / RECORD, record)
    return record


def points_of(settings: config.MergeConfig) -> list[Point]:
    """List the merges of a configuration in order."""
    if settings.path is None:
        return [Point(settings.method.kind, settings.method)]
    from reasoning_embedding.merging.recipe import at

    methods = [settings.method, *settings.path.beside]
    return [
        Point(f"{method.kind}-{t:g}", at(method, t), t)
        for method in methods
        if isinstance(method, config.Slerp | config.Linear)
        for t in settings.path.t
    ]


def models_of(settings: config.MergeConfig) -> list[tuple[str, Path]]:
    """Return what the user calls each model, and its folder.

    Raises
    ------
    InputError
        If a run or a step is not there.
    """
    if isinstance(settings.models, list):
        return [(reference, folder_of(reference)) for reference in settings.models]
    wanted = settings.models
    if not RunFolder(Path(wanted.run)).checkpoints.is_dir():
        raise InputError("there is no run here", where=wanted.run, todo="models.run is a run's folder")
    [series] = series_of([wanted.run])
    steps = list(series.chosen("saved" if wanted.steps == "all" else wanted.steps).models.items())
    kept = steps[-wanted.last :] if wanted.last else steps
    return [(f"{series.name}@{step}", Path(path)) for step, path in kept]


def folder_of(reference: str) -> Path:
    """Return the folder of a model: the path itself, or the checkpoint of ``RUN@STEP``.

    Raises
    ------
    InputError
        If it is a run without a step, or the run or its step is not there.
    """
    path, _, step = reference.rpartition("@")
    if path and not Path(reference).is_dir():
        run = RunFolder(Path(path))
        if not run.checkpoints.is_dir():
            raise InputError(
                f"{reference!r} names no run", where=path, todo="train it first, or mend the path"
            )
        return run.checkpoint(pick_step(run, step, reference))
    if RunFolder(Path(reference)).checkpoints.is_dir():
        raise InputError(
            f"{reference!r} is a run, not a model", where=reference, todo=f"name a step: {reference}@last"
        )
    return Path(reference)


def _write_settings(settings: config.MergeConfig, text: str | None, folder: Path) -> None:
    run = RunFolder(folder)
    if text is not None:
        atomic_write(run.config_yaml, text)
    write_json(run.config_json, settings.model_dump(mode="json"))


def _said(summary: dict[str, Any]) -> str:
    if summary["lerp_tensors"] is None:
        return ""
    return (
        f", LERP in {summary['lerp_tensors']:.1%} of tensors, {summary['lerp_parameters']:.1%} of parameters"
    )


def _evaluate(
    settings: config.MergeConfig,
    evaluation: config.Evaluation,
    folder: Path,
    record: dict[str, Any],
    first: Path,
    report: Report,
) -> None:
    """Score every merge as a run's checkpoints are scored, queries written as the first model's were."""
    from reasoning_embedding.checkpoints import content_hash
    from reasoning_embedding.checkpoints.embedder import load_embedder
    from reasoning_embedding.distributed import start_world, stop_world
    from reasoning_embedding.evaluation.encoder import QUERY_TEMPLATE
    from reasoning_embedding.evaluation.run import evaluate
    from reasoning_embedding.evaluation.scores import revision_of

    template = query_template(RunFolder(first.resolve().parent.parent)) or QUERY_TEMPLATE
    world = start_world()
    try:
        for point in record["points"]:
            model = folder / point["model"]
            scores = evaluate(
                load_embedder(model).to(world.device),
                evaluation.tasks,
                folder / "evaluation" / point["name"],
                model_name=f"{settings.name}-{point['name']}",
                revision=revision_of(None, content_hash(model)),
                step=None,
                settings=evaluation,
                query_template=template,
                report=report,
                world=world,
            )
            point["scores"] = {entry["task"]: _numbers(entry) for entry in scores["tasks"]}
            record["failed"] += [
                f"{point['name']}: {entry['task']}: {entry['error']}" for entry in scores["failed"]
            ]
    finally:
        stop_world()


def _numbers(entry: dict[str, Any]) -> dict[str, Any]:
    """Scores of a task without what only its own figure needs."""
    numbers = {key: value for key, value in entry.items() if isinstance(value, int | float)}
    return {"main_metric": entry.get("main_metric", "main_score"), **numbers}


def _analyze(
    settings: config.Measuring, folder: Path, record: dict[str, Any], models: Models, report: Report
) -> None:
    """Hold every merge against every model; ``hrsa/track.parquet`` has all layers, the record the final norm."""
    from reasoning_embedding.hrsa.activations import FINAL
    from reasoning_embedding.hrsa.track import Against, TrackTable, track

    instrument = make_instrument(settings, folder / "hrsa", report)
    table = TrackTable(RunFolder(folder).track)
    ends = {member.reference: checkpoint(member.folder, member.reference) for member in models.members}
    against = [Against(name, {None: end}) for name, end in ends.items()]
    for method in dict.fromkeys(point["method"] for point in record["points"]):
        points = [point for point in record["points"] if point["method"] == method]
        merges = {i: checkpoint(folder / point["model"], point["name"]) for i, point in enumerate(points)}
        track(method, merges, against, instrument, table)
        for index, point in enumerate(points):
            rows = [
                row
                for row in table.rows
                if (row["run"], row["step"], row["layer"]) == (method, index, FINAL)
                and row["content"] == merges[index].content
            ]
            point["similarity"] = {
                name: {
                    row["metric"]: [row["value"], row["low"], row["high"]]
                    for row in rows
                    if row["against"] == name
                }
                for name in ends
            }
    record["probe"] = {"kind": instrument.probe.kind, "texts": len(instrument.probe.texts)}
    record["tokens"] = settings.tokens
