"""Merges of a configuration: made, scored and compared with their models, once each."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.checkpoints.locks import hold
from reasoning_embedding.checkpoints.references import ResolvedModel, resolve
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_write, read_json, require_folder, write_json
from reasoning_embedding.progress import Report
from reasoning_embedding.secrets import sealed

from .comparisons import checkpoint, make_instrument, series_of
from .scoring import failures, query_template, score_model

if TYPE_CHECKING:
    from reasoning_embedding.merging.merge import Models


@dataclass(frozen=True)
class MergePoint:
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
        What ``merge.json`` holds: ``name``; ``models``, as the user calls them; ``points``, one a merge (``name``,
        ``method``, ``t``, ``model``, ``tensors`` (the report), ``summary``, ``warnings``, ``scores`` by task, and
        ``similarity`` by model and metric: value, low and high at the final norm); ``probe``; ``failed`` tasks.

    Raises
    ------
    InputError
        If a model is missing, damaged or does not fit the others, the folder holds something else or is in use by
        another process, or a task or the probe set cannot be used.

    Notes
    -----
    Merges are known again by the content of their models and their parameters, scores by the content of the merge,
    similarities by the content of both sides: a call that was stopped goes on.
    """
    from reasoning_embedding.merging.merge import open_models

    run = RunFolder(Path(settings.output_dir) / settings.name)
    require_folder(run.path)
    named = _models(settings)
    reference = getattr(settings.method, "base", None)
    base = (reference, resolve(reference).files) if reference else None
    points = _points(settings)
    with open_models(named, base) as models, _held(run):
        if text is not None:
            atomic_write(run.config_yaml, text)
        write_json(run.config_json, sealed(config.resolved_json(settings), run.path), summed=True)
        record: dict[str, Any] = {
            "name": settings.name,
            "models": [name for name, _ in named],
            "points": [_merged(point, models, run.path, report) for point in points],
            "failed": [],
        }
        if settings.evaluation is not None:
            _evaluate(settings, settings.evaluation, run, record, named[0][1], report)
        if settings.analysis is not None:
            _analyze(settings.analysis, run, record, models, report)
        write_json(run.merge, record, summed=True)
    return record


def _points(settings: config.MergeConfig) -> list[MergePoint]:
    """List the merges of a configuration in order."""
    if settings.path is None:
        return [MergePoint(settings.method.kind, settings.method)]
    from reasoning_embedding.merging.tensor_merge import at

    methods = [settings.method, *settings.path.beside]
    return [
        MergePoint(f"{method.kind}-{t:g}", at(method, t), t)
        for method in methods
        if isinstance(method, config.Slerp | config.Linear)
        for t in settings.path.t
    ]


def _models(settings: config.MergeConfig) -> list[tuple[str, Path]]:
    """Return what the user calls each model, and its folder."""
    if isinstance(settings.models, list):
        return [(reference, resolve(reference).files) for reference in settings.models]
    wanted = settings.models
    if not RunFolder(Path(wanted.run)).checkpoints.is_dir():
        raise InputError("there is no run here", where=wanted.run, todo="models.run is a run's folder")
    [series] = series_of([wanted.run])
    steps = list(series.chosen("saved" if wanted.steps == "all" else wanted.steps).models.items())
    kept = steps[-wanted.last :] if wanted.last else steps
    return [(f"{series.name}@{step}", Path(path)) for step, path in kept]


@contextmanager
def _held(run: RunFolder) -> Generator[None]:
    """Keep the folder to this process, and refuse one where a run or an experiment lies."""
    kind = read_json(run.config_json, default={"kind": "merge"}).get("kind")
    if kind != "merge":
        raise InputError(
            f"this folder holds the {kind} of that name", where=str(run.path), todo="change name"
        )
    refusal = "another process merges into this folder"
    with hold(run.lock, refusal=refusal, todo="wait for it, or change name"):
        yield


def _merged(point: MergePoint, models: Models, folder: Path, report: Report) -> dict[str, Any]:
    """Make one merge, and say what the record says of it."""
    from reasoning_embedding.merging.merge import merge

    model, file = folder / "models" / point.name, folder / "tensors" / f"{point.name}.json"
    found = merge(models, point.method, model, file)
    summary, fallback = found["summary"], ""
    if summary["lerp_tensors"] is not None:
        tensors, parameters = summary["lerp_tensors"], summary["lerp_parameters"]
        fallback = f", LERP in {tensors:.1%} of tensors, {parameters:.1%} of parameters"
    report(f"{point.name}: {'merged' if found['made'] else 'there already'}{fallback}")
    return {
        "name": point.name,
        "method": point.method.kind,
        "t": point.t,
        "model": model.relative_to(folder).as_posix(),
        "tensors": file.relative_to(folder).as_posix(),
        "summary": summary,
        "warnings": found["warnings"],
    }


def _evaluate(
    settings: config.MergeConfig,
    evaluation: config.Evaluation,
    run: RunFolder,
    record: dict[str, Any],
    first: Path,
    report: Report,
) -> None:
    """Score every merge as a run's checkpoints are scored, queries written as the first model's were."""
    from reasoning_embedding.distributed import joined_world

    template = query_template(RunFolder(first.resolve().parent.parent))
    with joined_world() as world:
        for point in record["points"]:
            scores = score_model(
                ResolvedModel(point["name"], run.path / point["model"]),
                evaluation,
                run.evaluation / point["name"],
                name=f"{settings.name}-{point['name']}",
                step=None,
                template=template,
                report=report,
                world=world,
            )
            point["scores"] = {entry["task"]: _numbers(entry) for entry in scores["tasks"]}
            record["failed"] += failures(scores, point["name"])


def _numbers(entry: dict[str, Any]) -> dict[str, Any]:
    """Scores of a task without what only its own figure needs."""
    numbers = {key: value for key, value in entry.items() if isinstance(value, int | float)}
    return {"main_metric": entry.get("main_metric", "main_score"), **numbers}


def _analyze(
    settings: config.Measuring, run: RunFolder, record: dict[str, Any], models: Models, report: Report
) -> None:
    """Compare every merge with every model; ``hrsa/track.parquet`` has all layers, the record the final norm."""
    from reasoning_embedding.hrsa.forward import FINAL
    from reasoning_embedding.hrsa.trajectory import Against, TrackTable, track

    instrument = make_instrument(settings, run.hrsa, report)
    table = TrackTable(run.track)
    ends = {
        member.reference: checkpoint(ResolvedModel(member.reference, member.folder))
        for member in models.members
    }
    against = [Against(name, {None: end}) for name, end in ends.items()]
    for method in dict.fromkeys(point["method"] for point in record["points"]):
        points = [point for point in record["points"] if point["method"] == method]
        merges = {
            i: checkpoint(ResolvedModel(point["name"], run.path / point["model"]))
            for i, point in enumerate(points)
        }
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
