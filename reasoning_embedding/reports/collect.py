"""Read an experiment or run folder into records; say what is missing instead of failing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints import RunFolder, step_name
from reasoning_embedding.checkpoints.scores import WHILE_TRAINING, load_scores, scores_by_step
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json
from reasoning_embedding.hrsa.trajectory import Trajectory, find_trajectories

from .records import Experiment, Run, Scores, Stage
from .similarity import read_pair


def collect(folder: Path) -> Experiment:
    """Read everything a report shows.

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
    config = read_json(folder / "config.resolved.json") if (folder / "config.resolved.json").exists() else {}
    is_run = config.get("kind", "run") == "run" and RunFolder(folder).metrics.exists()
    parts = ("runs", "lineage", "evaluation", "hrsa")
    if not is_run and not any((folder / part).is_dir() for part in parts):
        raise InputError(
            "neither an experiment nor a run lies here",
            where=str(folder),
            todo="train or run the experiment first",
        )
    missing: list[str] = []
    if not config:
        missing.append("config.resolved.json: names, seeds and the seed band are guessed from the folders")
    runs = (_read_run(folder, config, missing),) if is_run else _read_runs(folder, config, missing)
    analysis = config.get("analysis") or {}
    pairs = tuple(
        read_pair(read_json(path), path)
        for path in _listed(
            folder / "hrsa" / "pairs", _names(analysis.get("pairs")), "analysed pair", missing
        )
    )
    tracks = _trajectories(folder, _names(analysis.get("realignment")), missing)
    baselines = {} if is_run else _read_baselines(folder, config, missing)
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
        stages=_read_stages(folder, config, missing),
        pairs=pairs,
        realignments=tracks,
        seed_band=(band,) if isinstance(band, str) else tuple(band),
        missing=tuple(missing),
        contamination=read_json(compared) if (compared := RunFolder(folder).contamination).exists() else {},
    )


def read_log(path: Path, missing: list[str]) -> tuple[dict[str, Any], ...]:
    """Objects of a metrics log in order of steps; of a step logged twice (a resumed run) the later one.

    A last line cut short by a killed process is left out and said; any other damage is an error.

    Raises
    ------
    InputError
        If a line before the last is not JSON.
    """
    if not path.exists():
        missing.append(f"{path.parent.name}: no training log ({path.name})")
        return ()
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    rows: dict[int, dict[str, Any]] = {}
    for index, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if index == len(lines):
                missing.append(
                    f"{path.parent.name}: the last line of {path.name} was cut short and is left out"
                )
                break
            raise InputError(
                f"not JSON: {error.msg}", where=f"{path}:{index}", todo="repair or delete the line"
            ) from error
        if isinstance(row, dict):
            rows[int(row.get("step", index))] = row
    return tuple(rows[step] | {"step": step} for step in sorted(rows))


def read_scores(record: dict[str, Any], step: int | None, missing: list[str], name: str) -> Scores:
    """Scores of one model; ``ndcg_at_10`` falls back on the task's main score."""
    tasks: dict[str, dict[str, float]] = {}
    sequences: dict[str, dict[str, Any]] = {}
    for task in record.get("tasks") or []:
        if "tsne" in task:
            sequences[str(task["task"])] = task
            continue
        values = {key: float(value) for key, value in task.items() if _is_number(value)}
        if "main_score" in values:
            values.setdefault("ndcg_at_10", values["main_score"])
        tasks[str(task["task"])] = values
    for entry in record.get("failed") or []:
        missing.append(f"{name}: task {entry.get('task')!r} failed: {entry.get('error')}")
    model = str(record.get("model") or name)
    return Scores(model=model, step=step, tasks=tasks, sequences=sequences)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _names(entries: list[dict[str, Any]] | None) -> list[str]:
    return [str(entry["name"]) for entry in entries or []]


def _listed(folder: Path, names: list[str], what: str, missing: list[str]) -> list[Path]:
    """Files of a folder: the configured ones in their order, then any others."""
    found = {path.stem: path for path in sorted(folder.glob("*.json"))} if folder.is_dir() else {}
    missing.extend(
        f"{what} {name!r}: {folder.name}/{name}.json is not there" for name in names if name not in found
    )
    ordered = [found.pop(name) for name in names if name in found]
    return [*ordered, *found.values()]


def _folders(parent: Path) -> dict[str, Path]:
    """Sub-folders by name; hidden ones are being written."""
    if not parent.is_dir():
        return {}
    return {
        path.name: path
        for path in sorted(parent.iterdir())
        if path.is_dir() and not path.name.startswith(".")
    }


def _trajectories(folder: Path, names: list[str], missing: list[str]) -> tuple[Trajectory, ...]:
    """Trajectories: the configured ones in their order, then others of this folder, then those of its runs."""
    found = {one.name: one for one in find_trajectories(folder)}
    missing.extend(
        f"track {name!r}: hrsa/track.parquet does not hold it" for name in names if name not in found
    )
    known = [*(found.pop(name) for name in names if name in found), *found.values()]
    seen = {(one.run, one.against, one.probe.hash) for one in known}
    of_runs = [
        one
        for run in _folders(folder / "runs").values()
        for one in find_trajectories(run)
        if (one.run, one.against, one.probe.hash) not in seen
    ]
    return (*known, *of_runs)


def _read_runs(folder: Path, config: dict[str, Any], missing: list[str]) -> tuple[Run, ...]:
    entries = {str(entry["name"]): entry for entry in config.get("runs") or []}
    found = _folders(folder / "runs")
    missing.extend(f"run {name!r}: runs/{name} is not there" for name in entries if name not in found)
    ordered = [name for name in entries if name in found] + [name for name in found if name not in entries]
    return tuple(_read_run(found[name], entries.get(name, {}), missing) for name in ordered)


def _read_run(folder: Path, entry: dict[str, Any], missing: list[str]) -> Run:
    paths = RunFolder(folder)
    records = scores_by_step(paths)
    scores = {step: read_scores(record, step, missing, step_name(step)) for step, record in records.items()}
    if any(entry.get(WHILE_TRAINING) for record in records.values() for entry in record["tasks"]):
        missing.append(
            f"run {folder.name!r}: no checkpoint was evaluated; the scores are those taken while it trained"
        )
    if not scores:
        missing.append(f"run {folder.name!r}: no checkpoint was evaluated")
    elif 0 not in scores or max(scores) == 0:
        lacking = "step 0" if 0 not in scores else "any step after 0"
        missing.append(f"run {folder.name!r}: {lacking} was not evaluated, so no change can be shown")
    backbone = entry.get("backbone")
    if isinstance(backbone, dict):
        backbone = backbone.get("path") or backbone.get("kind")
    return Run(
        name=str(entry.get("name") or folder.name),
        backbone=backbone,
        seed=entry.get("seed"),
        metrics=read_log(paths.metrics, missing),
        scores=scores,
        manifest=read_json(paths.manifest) if paths.manifest.exists() else {},
    )


def _read_baselines(folder: Path, config: dict[str, Any], missing: list[str]) -> dict[str, Scores]:
    asked = (config.get("evaluation") or {}).get("baselines") or []
    found = {
        name: read_scores(load_scores(path), None, missing, name)
        for name, path in _folders(folder / "evaluation").items()
        if (path / "scores.json").exists()
    }
    missing.extend(
        f"baseline {name!r}: evaluation/{name}/scores.json is not there"
        for name in asked
        if name not in found
    )
    return found


def _read_stages(folder: Path, config: dict[str, Any], missing: list[str]) -> tuple[Stage, ...]:
    entries = {str(entry["name"]): entry for entry in (config.get("lineage") or {}).get("stages") or []}
    found = _folders(folder / "lineage")
    missing.extend(f"stage {name!r}: lineage/{name} is not there" for name in entries if name not in found)
    stages = []
    for name in [
        *(name for name in entries if name in found),
        *(name for name in found if name not in entries),
    ]:
        entry, path = entries.get(name, {}), found[name]
        gates = read_json(path / "gates.json") if (path / "gates.json").exists() else {}
        provenance = read_json(path / "provenance.json") if (path / "provenance.json").exists() else {}
        measured = tuple(record for key in ("measured", "other_format") if (record := gates.get(key)))
        thresholds = {
            gate: float(value) for gate, value in (gates.get("thresholds") or {}).items() if _is_number(value)
        }
        if not measured:
            missing.append(f"stage {name!r}: its quality was not measured")
        stages.append(
            Stage(
                name=name,
                kind=str(entry.get("kind") or provenance.get("kind") or "unknown"),
                parent=entry.get("parent"),
                gates=measured,
                thresholds=thresholds,
                metrics=read_log(path / "metrics.jsonl", missing),
            )
        )
    return tuple(stages)
