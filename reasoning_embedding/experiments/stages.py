"""The stages of an experiment: what each needs, and the content hash that says it is done.

A stage's key is a hash of its own settings, of the files those name, and of what its parents produced. A
finished stage leaves a record with its key; while the key stays the same the stage is not run again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasoning_embedding import __version__, config
from reasoning_embedding.checkpoints import RunFolder, content_hash, hash_file
from reasoning_embedding.files import write_json

from .contamination import CONTAMINATION, scored_tasks

#: Settings under these keys name files or folders whose content counts.
_PATH_KEYS = {"path", "paths", "rows", "corpus", "tokenizer", "train", "test"}


@dataclass(frozen=True)
class Stage:
    """One unit of work, a process of its own.

    Attributes
    ----------
    name : str
        ``contamination``, ``grow-STAGE``, ``train-RUN``, ``evaluate``, ``analyze`` or ``track``.
    settings : dict
        What decides its result, as JSON values.
    needs : tuple of str
        Stages that must be finished before, and whose results decide this one's.
    after : tuple of str
        Stages that must be finished before, and decide nothing.
    """

    name: str
    settings: dict[str, Any]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


def plan_stages(experiment: config.ExperimentConfig) -> list[Stage]:
    """List an experiment's stages, parents first."""
    stages: list[Stage] = []
    checks: tuple[str, ...] = ()
    if tasks := scored_tasks(experiment):
        settings = {
            "data": experiment.recipe.data.model_dump(mode="json"),
            "tasks": [task.model_dump(mode="json") for task in tasks],
        }
        # First, so that a refusal comes before anything is grown; a new task must not train the runs anew.
        stages.append(Stage(CONTAMINATION, settings))
        checks = (CONTAMINATION,)
    if experiment.lineage is not None:
        tokenizer = experiment.lineage.model_dump(mode="json", include={"tokenizer"})
        for grown in experiment.lineage.stages:
            settings = {"stage": grown.model_dump(mode="json"), **tokenizer}
            stages.append(
                Stage(f"grow-{grown.name}", settings, (f"grow-{grown.needs}",) if grown.needs else ())
            )
        # Siblings that see other tokens are refused before any of them is trained.
        given = (grown.name for grown in experiment.lineage.stages if isinstance(grown, config.GivenStage))
        checks += tuple(f"grow-{name}" for name in given)
    for run in experiment.runs:
        settings = {
            "run": run.model_dump(mode="json"),
            "recipe": experiment.recipe.model_dump(mode="json"),
        }
        needs = (f"grow-{run.backbone}",) if isinstance(run.backbone, str) else ()
        stages.append(Stage(f"train-{run.name}", settings, needs, checks))
    everything = tuple(stage.name for stage in stages if stage.name != CONTAMINATION)
    return [*stages, *(Stage(name, settings, everything) for name, settings in _measurements(experiment))]


def _measurements(experiment: config.ExperimentConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is done to the finished models: stage and settings; pairs and trajectories run side by side."""
    if experiment.evaluation is not None:
        yield "evaluate", experiment.evaluation.model_dump(mode="json")
    analysis = experiment.analysis
    if analysis is not None and analysis.pairs:
        yield "analyze", analysis.model_dump(mode="json", exclude={"realignment"})
    if analysis is not None and analysis.realignment:
        yield "track", analysis.model_dump(mode="json", exclude={"pairs", "seed_band"})


class Ledger:
    """Records of finished stages under ``<experiment>/stages/``.

    Parameters
    ----------
    folder : Path
        The experiment's folder.
    stages : list of Stage
        Parents first.
    """

    def __init__(self, folder: Path, stages: list[Stage]) -> None:
        self.folder = folder
        self._stages = {stage.name: stage for stage in stages}
        self._file_hashes: dict[Path, str] = {}
        self._outputs: dict[str, str | None] = {}

    def key(self, name: str) -> str:
        """Content hash of a stage's inputs; its parents must be finished."""
        stage = self._stages[name]
        parents = {need: self._record(need).get("output") for need in stage.needs}
        inputs = {
            "version": __version__,
            "settings": stage.settings,
            "files": {str(path): self._hash(path) for path in sorted(set(_files_named(stage.settings)))},
            "parents": parents,
        }
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()

    def is_done(self, name: str) -> bool:
        """Whether a stage and all it needs are finished with the inputs of now, and its output still there."""
        if not all(self.is_done(need) for need in self._stages[name].needs):
            return False
        record = self._record(name)
        return record.get("key") == self.key(name) and record.get("output") == self._output(name)

    def finish(self, name: str, seconds: float) -> None:
        """Record a stage that has just ended well."""
        self._outputs.pop(name, None)
        record = {"key": self.key(name), "output": self._output(name), "seconds": round(seconds, 1)}
        write_json(self._path(name), record)

    def _path(self, name: str) -> Path:
        return self.folder / "stages" / f"{name}.json"

    def _record(self, name: str) -> dict[str, Any]:
        path = self._path(name)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def _output(self, name: str) -> str | None:
        """Content hash of what a stage made, or None where it is missing; large models are read once."""
        if name not in self._outputs:
            self._outputs[name] = self._read_output(name)
        return self._outputs[name]

    def _read_output(self, name: str) -> str | None:
        kind, _, rest = name.partition("-")
        if kind == "grow":
            folder = self.folder / "lineage" / rest
            return content_hash(folder) if folder.is_dir() else None
        if kind == "train":
            run = RunFolder(self.folder / "runs" / rest)
            steps = run.steps()
            return content_hash(run.checkpoint(steps[-1])) if steps else None
        patterns = {
            CONTAMINATION: ("contamination.json",),
            "evaluate": ("evaluation/*/scores.json", "runs/*/evaluation/*/scores.json"),
            "analyze": ("hrsa/pairs/*.json",),
            # Experiments of older versions left a JSON file a trajectory.
            "track": ("hrsa/track.parquet", "hrsa/realignment/*.json"),
        }[name]
        files = sorted(path for pattern in patterns for path in self.folder.glob(pattern))
        digest = hashlib.sha256()
        for path in files:
            digest.update(f"{path.relative_to(self.folder)}\0{hash_file(path)}\n".encode())
        return digest.hexdigest() if files else None

    def _hash(self, path: Path) -> str:
        if path not in self._file_hashes:
            self._file_hashes[path] = hash_file(path)
        return self._file_hashes[path]


def _files_named(settings: Any, key: str = "") -> Iterator[Path]:
    """Files (or files of folders) that settings name and that exist; others are left to the stage."""
    if isinstance(settings, dict):
        for name, value in settings.items():
            yield from _files_named(value, name)
    elif isinstance(settings, list):
        for value in settings:
            yield from _files_named(value, key)
    elif isinstance(settings, str) and key in _PATH_KEYS:
        path = Path(settings)
        if path.is_file():
            yield path
        elif path.is_dir():
            yield from (file for file in path.rglob("*") if file.is_file())
