"""Read the folders of experiments, runs, sweeps and merges; say what is missing instead of failing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reasoning_embedding.checkpoints.layout import ExperimentFolder, RunFolder, step_name
from reasoning_embedding.checkpoints.run_records import read_manifest, read_settings
from reasoning_embedding.checkpoints.scores import FILE as SCORES
from reasoning_embedding.checkpoints.scores import (
    WHILE_TRAINING,
    evaluated_scores,
    load_scores,
    read_best,
    scores_by_step,
)
from reasoning_embedding.config.replicates import Replicates
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json, read_json_lines
from reasoning_embedding.hrsa.trajectory import MeasuredTrajectory, ProbeSummary, find_trajectories

from .labels import SCORE_KEY
from .records import (
    AnalysedModel,
    AnalysedPair,
    Experiment,
    GrownBackbone,
    LevelValues,
    Run,
    Scores,
    SweepRecord,
    finite,
)

_EVALUATE_AGAIN = "evaluate the model again"


def read_experiment(folder: Path) -> Experiment:
    """Read everything that a report of an experiment or of one run shows.

    Parameters
    ----------
    folder : Path
        An experiment folder (``runs/``, ``lineage/``, ``evaluation/``, ``hrsa/``) or the folder of one run.

    Returns
    -------
    Experiment
        With what was found; ``missing`` names the parts that were not.

    Raises
    ------
    InputError
        If the folder is neither, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise InputError("no such folder", where=str(folder), todo="name an experiment or run folder")
    config, paths = read_config(folder), ExperimentFolder(folder)
    is_run = config.get("kind", "run") == "run" and RunFolder(folder).metrics.exists()
    parts = (paths.runs, paths.lineage, paths.evaluation, paths.hrsa)
    if not is_run and not any(part.is_dir() for part in parts):
        raise InputError(
            "neither an experiment nor a run lies here",
            where=str(folder),
            todo="train or run the experiment first",
        )
    missing: list[str] = []
    if not config:
        missing.append("config.resolved.json: names, seeds and the seed band are guessed from the folders")
    runs = (_read_run(RunFolder(folder), config, missing),) if is_run else _read_runs(paths, config, missing)
    analysis = config.get("analysis") or {}
    pairs = _by_readout(_read_pairs(paths, analysis, missing), runs)
    trajectories = _read_trajectories(paths, analysis, missing)
    baselines = {} if is_run else _read_baselines(paths, config, missing)
    if not pairs and not analysis.get("pairs"):
        missing.append("HRSA pairs: no analysis was asked for or run")
    band = analysis.get("seed_band") or []
    if pairs and not band:
        missing.append(
            "seed band: analysis.seed_band names no pair, so nothing is held against the noise of a seed"
        )
    name = str(config.get("name") or folder.resolve().name)
    return Experiment(
        folder=folder,
        name=name,
        title=str(config.get("title") or name),
        runs=runs,
        baselines=baselines,
        backbones=_read_backbones(paths, config, missing),
        pairs=pairs,
        trajectories=trajectories,
        seed_band=(band,) if isinstance(band, str) else tuple(band),
        missing=tuple(missing),
        contamination=read_json(paths.contamination, default={}),
        replicates=read_design(config, folder),
    )


def read_design(config: dict[str, Any], folder: Path) -> Replicates | None:
    """Return the replicate design of an experiment's resolved configuration; None where it has none.

    Raises
    ------
    InputError
        If the section describes no design.
    """
    section = config.get("replicates")
    if section is None:
        return None
    try:
        return Replicates.model_validate(section)
    except ValidationError as error:
        what = f"its section 'replicates' describes no design ({error.errors()[0]['msg']})"
        todo = "run the experiment again with its configuration"
        raise InputError(what, where=str(RunFolder(folder).config_json), todo=todo) from error


def read_sweep(folder: Path) -> SweepRecord:
    """Read a sweep's folder.

    Raises
    ------
    InputError
        If no sweep lies there, or a file of it is damaged.
    """
    from reasoning_embedding.config.sweep import SweepConfig
    from reasoning_embedding.sweeps.ledger import SweepLedger

    ledger = SweepLedger(folder)
    runs = ledger.runs()
    sweep = SweepConfig.model_validate(read_config(folder))
    evaluation = sweep.base.evaluation
    metric = sweep.metric or (f"best score ({evaluation.select})" if evaluation is not None else "loss")
    outcomes = tuple(ledger.outcome(sweep, run) for run in runs)
    return SweepRecord(sweep.name, sweep.title or sweep.name, metric, sweep.less_is_better, outcomes)


def read_merge(folder: Path) -> dict[str, Any]:
    """Read ``merge.json`` of a merge's folder.

    Raises
    ------
    InputError
        If there is none, or it is damaged.
    """
    return _read_merge_file(RunFolder(folder).merge)


def read_merge_tensors(folder: Path, point: dict[str, Any]) -> list[dict[str, Any]]:
    """Read what was measured of every tensor in one merge of a folder.

    Raises
    ------
    InputError
        If the file is not there, or damaged.
    """
    return _read_merge_file(folder / point["tensors"])["tensors"]


def _read_merge_file(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, todo="merge again")
    except FileNotFoundError as error:
        raise InputError("no merge here", where=str(path), todo="rembed merge CONFIG makes one") from error


def read_config(folder: Path) -> dict[str, Any]:
    """Read the configuration with all defaults filled in; empty where there is none."""
    return read_settings(RunFolder(folder))


# --- scores ----------------------------------------------------------------------------------------


def _scores(record: dict[str, Any], folder: Path, missing: list[str]) -> Scores:
    """Scores of one model; ``ndcg_at_10`` falls back on the task's main score, a folder's name on that of the model."""
    tasks: dict[str, dict[str, float]] = {}
    sequences: dict[str, dict[str, Any]] = {}
    for entry in record["tasks"]:
        task = str(entry["task"])
        if "tsne" in entry:
            sequences[task] = entry
            continue
        tasks[task] = _numbers(entry)
        if "main_score" in tasks[task]:
            tasks[task].setdefault(SCORE_KEY, tasks[task]["main_score"])
    for entry in record["failed"]:
        missing.append(f"{folder.name}: task {entry.get('task')!r} failed: {entry.get('error')}")
    suites = record.get("suites") or {}
    if not isinstance(suites, dict) or not all(isinstance(names, list) for names in suites.values()):
        raise InputError(
            "'suites' is not suite -> names of its tasks", where=str(folder / SCORES), todo=_EVALUATE_AGAIN
        )
    return Scores(
        model=str(record["model"] or folder.name),
        step=record["step"],
        tasks=tasks,
        sequences=sequences,
        entries=tuple(record["tasks"]),
        failed=tuple(record["failed"]),
        suites={str(suite): tuple(map(str, names)) for suite, names in suites.items()},
        settings=record["settings"] or {},
        folder=folder,
    )


def read_checkpoint_scores(run: RunFolder) -> dict[int, Scores]:
    """Read the scores of a run's evaluated checkpoints, by step."""
    return _of_steps(run, evaluated_scores(run), [])


def scores_of_record(record: dict[str, Any], folder: Path) -> Scores:
    """Return what :func:`~reasoning_embedding.checkpoints.scores.load_scores` read as the scores of one model."""
    return _scores(record, folder, [])


def _of_steps(run: RunFolder, records: dict[int, dict[str, Any]], missing: list[str]) -> dict[int, Scores]:
    return {
        step: replace(_scores(record, run.evaluation / step_name(step), missing), step=step)
        for step, record in records.items()
    }


def read_query_scores(scores: Scores, task: str) -> dict[str, float] | None:
    """Read the scores of a task's single queries by query id; None where none were kept.

    Raises
    ------
    InputError
        If the file holds anything else.
    """
    if scores.folder is None:
        return None
    path = scores.folder / "per_query" / f"{task}.json"
    if not path.exists():
        return None
    found = read_json(path).get("scores")
    if not isinstance(found, dict) or len(numbers := _numbers(found)) < len(found):
        raise InputError("not scores of single queries", where=str(path), todo=_EVALUATE_AGAIN)
    return numbers


def _numbers(record: dict[str, Any]) -> dict[str, float]:
    """The finite numbers of a record."""
    return {key: number for key, value in record.items() if (number := finite(value)) is not None}


# --- runs and grown backbones ----------------------------------------------------------------------


def _read_log(path: Path, missing: list[str]) -> tuple[dict[str, Any], ...]:
    """Read a metrics log in order of steps; of a step logged twice (a resumed run) the later line counts.

    A last line cut short by a killed process is left out and said; any other damage is an error.
    """
    if not path.exists():
        missing.append(f"{path.parent.name}: no training log ({path.name})")
        return ()
    said = f"{path.parent.name}: the last line of {path.name} was cut short and is left out"
    records = read_json_lines(path, cut=lambda _: missing.append(said))
    rows = {int(row.get("step", index)): row for index, row in enumerate(records, start=1)}
    return tuple(rows[step] | {"step": step} for step in sorted(rows))


def by_name(entries: Iterable[dict[str, Any]] | None) -> dict[str, dict[str, Any]]:
    """Entries of a configuration's list by their names."""
    return {str(entry["name"]): entry for entry in entries or []}


def backbone_name(entry: dict[str, Any]) -> str | None:
    """What a run's entry in a configuration calls its backbone; None where it names none."""
    backbone = entry.get("backbone")
    if not isinstance(backbone, dict):
        return str(backbone) if backbone else None
    name = backbone.get("path") or backbone.get("kind")
    return f"{name}@{backbone['revision']}" if name and backbone.get("revision") else name


def _in_order(names: Iterable[str], found: Iterable[str]) -> list[str]:
    """What was found: what the configuration names in its order, then the others."""
    names, found = list(names), list(found)
    return [*(name for name in names if name in found), *(name for name in found if name not in names)]


def _read_runs(paths: ExperimentFolder, config: dict[str, Any], missing: list[str]) -> tuple[Run, ...]:
    entries, found = by_name(config.get("runs")), paths.run_names()
    missing.extend(f"run {name!r}: runs/{name} is not there" for name in entries if name not in found)
    return tuple(
        _read_run(paths.run(name), entries.get(name, {}), missing) for name in _in_order(entries, found)
    )


def _read_run(paths: RunFolder, entry: dict[str, Any], missing: list[str]) -> Run:
    name = paths.path.name
    records = scores_by_step(paths)
    scores = _of_steps(paths, records, missing)
    if any(entry.get(WHILE_TRAINING) for record in records.values() for entry in record["tasks"]):
        missing.append(
            f"run {name!r}: no checkpoint was evaluated; the scores are those taken while it trained"
        )
    if not scores:
        missing.append(f"run {name!r}: no checkpoint was evaluated")
    elif 0 not in scores or max(scores) == 0:
        lacking = "step 0" if 0 not in scores else "any step after 0"
        missing.append(f"run {name!r}: {lacking} was not evaluated, so no change can be shown")
    return Run(
        name=str(entry.get("name") or name),
        backbone=backbone_name(entry),
        seed=entry.get("seed"),
        readout=named if isinstance(named := entry.get("readout"), str) else None,
        metrics=_read_log(paths.metrics, missing),
        scores=scores,
        manifest=read_manifest(paths),
        compressed=tuple(
            _scores(load_scores(file.parent), file.parent, missing)
            for file in sorted(paths.evaluation.glob(f"step-*/*/{SCORES}"))
        ),
        best_step=(read_best(paths) or {}).get("step"),
    )


def _read_baselines(paths: ExperimentFolder, config: dict[str, Any], missing: list[str]) -> dict[str, Scores]:
    asked = (config.get("evaluation") or {}).get("baselines") or []
    found = {
        name: replace(_scores(load_scores(folder), folder, missing), step=None)
        for name in paths.baseline_names()
        if ((folder := paths.baseline(name)) / SCORES).exists()
    }
    missing.extend(
        f"baseline {name!r}: evaluation/{name}/scores.json is not there"
        for name in asked
        if name not in found
    )
    return found


def _read_backbones(
    paths: ExperimentFolder, config: dict[str, Any], missing: list[str]
) -> tuple[GrownBackbone, ...]:
    entries = by_name((config.get("lineage") or {}).get("stages"))
    found = paths.stage_names()
    missing.extend(f"stage {name!r}: lineage/{name} is not there" for name in entries if name not in found)
    backbones = []
    for name in _in_order(entries, found):
        entry, stage = entries.get(name, {}), paths.stage(name)
        gates = read_json(stage.path / "gates.json", default={})
        provenance = read_json(stage.path / "provenance.json", default={})
        measured = tuple(record for key in ("measured", "other_format") if (record := gates.get(key)))
        if not measured:
            missing.append(f"stage {name!r}: its quality was not measured")
        backbones.append(
            GrownBackbone(
                name=name,
                kind=str(entry.get("kind") or provenance.get("kind") or "unknown"),
                parent=entry.get("parent"),
                gates=measured,
                thresholds=_numbers(gates.get("thresholds") or {}),
                metrics=_read_log(stage.metrics, missing),
                weight_change=finite((provenance.get("weight_change") or {}).get("norm")),
                live_updates=provenance.get("live_updates"),
            )
        )
    return tuple(backbones)


# --- analyses --------------------------------------------------------------------------------------


def _read_pairs(
    paths: ExperimentFolder, analysis: dict[str, Any], missing: list[str]
) -> tuple[AnalysedPair, ...]:
    """The configured pairs in their order, then any others."""
    names = by_name(analysis.get("pairs"))
    found = {path.stem: path for path in sorted(paths.pairs.glob("*.json"))}
    missing.extend(
        f"analysed pair {name!r}: pairs/{name}.json is not there" for name in names if name not in found
    )
    return tuple(_read_pair(found[name]) for name in _in_order(names, found))


def _by_readout(pairs: tuple[AnalysedPair, ...], runs: Iterable[Run]) -> tuple[AnalysedPair, ...]:
    """Pairs in the order of their readouts, where the experiment compares several; models without one first."""
    readouts = {run.name: run.readout for run in runs if run.readout is not None}
    order = list(dict.fromkeys(readouts.values()))

    def place(pair: AnalysedPair) -> int:
        names = [model.reference.removeprefix("run:").partition("@")[0] for model in (pair.a, pair.b)]
        # Of two readouts the later one: the others are held against the first.
        return max(order.index(readouts[name]) if name in readouts else -1 for name in names)

    return tuple(sorted(pairs, key=place))


def _read_trajectories(
    paths: ExperimentFolder, analysis: dict[str, Any], missing: list[str]
) -> tuple[MeasuredTrajectory, ...]:
    """The configured trajectories in their order, then others of this folder, then those of its runs."""
    names = by_name(analysis.get("realignment"))
    found = {one.name: one for one in find_trajectories(paths.path)}
    missing.extend(
        f"track {name!r}: hrsa/track.parquet does not hold it" for name in names if name not in found
    )
    known = [found[name] for name in _in_order(names, found)]
    seen = {(one.run, one.against, one.probe.hash) for one in known}
    of_runs = [
        one
        for name in paths.run_names()
        for one in find_trajectories(paths.run(name).path)
        if (one.run, one.against, one.probe.hash) not in seen
    ]
    return (*known, *of_runs)


def _read_pair(path: Path) -> AnalysedPair:
    """Read an analysed pair; refuse a record that lacks a part that gives its numbers their meaning."""
    record = read_json(path)
    if lacking := [key for key in ("name", "a", "b", "probe", "last") if key not in record]:
        raise InputError(
            f"lacks {', '.join(lacking)}", where=str(path), todo="analyse again: `rembed analyze`"
        )
    shared = record.get("layers") or []
    return AnalysedPair(
        name=str(record["name"]),
        a=_model(record["a"]),
        b=_model(record["b"]),
        probe=_probe_set(record["probe"]),
        layers_a=tuple(map(str, record.get("layers_a") or shared)),
        layers_b=tuple(map(str, record.get("layers_b") or shared)),
        heatmaps={
            metric: [list(map(finite, row)) for row in rows]
            for metric, rows in (record.get("heatmaps") or {}).items()
            if rows is not None  # models of different widths have no dimension-wise map
        },
        diagonal={
            metric: list(map(finite, found)) for metric, found in (record.get("diagonal") or {}).items()
        },
        last={metric: finite(value) for metric, value in record["last"].items()},
        intervals={
            metric: ends
            for metric, bounds in (record.get("intervals") or {}).items()
            if (ends := _interval(bounds)) is not None
        },
        chance={metric: finite(value) for metric, value in (record.get("chance") or {}).items()},
        definitions={metric: str(text) for metric, text in (record.get("definitions") or {}).items()},
        probe_transfer=record.get("probe_transfer"),
        spectrum=tuple(
            (_model(record[side]), found)
            for key in ("spectrum", "spectrum_mean")
            for side in ("a", "b")
            if (found := (record.get(key) or {}).get(side))
        ),
        warnings=tuple(map(str, record.get("warnings") or [])),
        levels={name: _level(found) for name, found in (record.get("levels") or {}).items()},
        effective_rows=tuple(map(float, record.get("effective_rows") or [])),
        rows=record["probe"].get("rows"),
    )


def _level(record: dict[str, Any]) -> LevelValues:
    return LevelValues(
        meaning=str(record.get("meaning", "")),
        last={metric: finite(value) for metric, value in (record.get("last") or {}).items()},
        diagonal={metric: list(map(finite, row)) for metric, row in (record.get("diagonal") or {}).items()},
    )


def _model(record: dict[str, Any] | str) -> AnalysedModel:
    """The model that a record names, by its reference or with its attention."""
    if isinstance(record, str):
        return AnalysedModel(reference=record, attention="")
    return AnalysedModel(
        reference=str(record.get("reference", record.get("path", "?"))),
        attention=str(record.get("attention", "")),
    )


def _probe_set(record: dict[str, Any]) -> ProbeSummary:
    """The probe set that a record names."""
    return ProbeSummary(
        kind=str(record.get("kind", "")),
        texts=record.get("texts"),
        rows=record.get("rows"),
        tokens=str(record.get("tokens", "")),
        hash=str(record.get("hash", "")),
        skipped=record.get("skipped") or 0,
    )


def _interval(bounds: list[Any] | None) -> tuple[float, float] | None:
    """Ends of an interval; None where either could not be computed."""
    low, high = (finite(end) for end in bounds or (None, None))
    return None if low is None or high is None else (low, high)
