"""Where things lie in the folders of runs, experiments and sweeps; the one place that knows their names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from reasoning_embedding import config

_STEP = re.compile(r"step-(\d{6,})")


def step_name(step: int) -> str:
    """Folder name of a step: ``step-000200``."""
    return f"step-{step:06d}"


@dataclass(frozen=True)
class ResultFolder:
    """Paths that the folders of runs, experiments, sweeps and merges share; nothing is created by asking for them."""

    path: Path

    @property
    def config_yaml(self) -> Path:
        """The configuration as written."""
        return self.path / "config.yaml"

    @property
    def config_json(self) -> Path:
        """The configuration with every default filled in."""
        return self.path / "config.resolved.json"

    @property
    def lock(self) -> Path:
        """Held by the process that works here."""
        return self.path / ".lock"

    @property
    def contamination(self) -> Path:
        """Evaluation texts that also stand in the training data."""
        return self.path / "contamination.json"

    @property
    def evaluation(self) -> Path:
        """Folder of the scores."""
        return self.path / "evaluation"

    @property
    def hrsa(self) -> Path:
        """Folder of what was measured of representations."""
        return self.path / "hrsa"

    @property
    def track(self) -> Path:
        """How the representation moved, one row a step, reference, layer and metric."""
        return self.hrsa / "track.parquet"

    @property
    def weight_track(self) -> Path:
        """How the weights moved, step by step."""
        return self.hrsa / "weights.json"

    @property
    def logs(self) -> Path:
        """Folder of what each process said."""
        return self.path / "logs"

    def log(self, name: str) -> Path:
        """What the process of a stage, or of a sweep's run, said."""
        return self.logs / f"{name}.log"

    @property
    def report(self) -> Path:
        """Folder of the page, its figures and its tables."""
        return self.path / "report"

    @property
    def page(self) -> Path:
        """The page."""
        return self.report / "index.html"


@dataclass(frozen=True)
class RunFolder(ResultFolder):
    """Paths of one run; those of checkpoints and metrics also hold for a stage of a lineage."""

    @classmethod
    def of(cls, settings: config.RunConfig) -> Self:
        """Folder of a configured run."""
        return cls(Path(settings.output_dir) / settings.name)

    @property
    def experiment(self) -> ExperimentFolder:
        """The experiment it belongs to; of a lone run the folder that it and its siblings lie in."""
        home = self.path.resolve().parent
        return around if (around := ExperimentFolder(home.parent)).runs == home else ExperimentFolder(home)

    @property
    def manifest(self) -> Path:
        """Versions, data fingerprint, token hash, seeds, hardware."""
        return self.path / "manifest.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a logged step."""
        return self.path / "metrics.jsonl"

    @property
    def best(self) -> Path:
        """Which step scored best while training, by what score."""
        return self.path / "best.json"

    @property
    def holdout(self) -> Path:
        """Rows kept out of training, as retrieval tasks."""
        return self.path / "holdout"

    @property
    def checkpoints(self) -> Path:
        """Folder of the models."""
        return self.path / "checkpoints"

    @property
    def states(self) -> Path:
        """Folder of the optimizer states."""
        return self.path / "state"

    @property
    def merge(self) -> Path:
        """What a folder of merges says of them: models, scores, similarities."""
        return self.path / "merge.json"

    def checkpoint(self, step: int) -> Path:
        """Folder of one step's model."""
        return self.checkpoints / step_name(step)

    def state(self, step: int) -> Path:
        """Folder of one step's optimizer state."""
        return self.states / step_name(step)

    def steps(self) -> list[int]:
        """Steps whose model is on disk, in order."""
        return _steps_in(self.checkpoints)

    def state_steps(self) -> list[int]:
        """Steps whose optimizer state is on disk, in order."""
        return _steps_in(self.states)


@dataclass(frozen=True)
class FolderOfRuns(ResultFolder):
    """Paths that an experiment and a sweep share."""

    @property
    def runs(self) -> Path:
        """Folder of the runs."""
        return self.path / "runs"

    def run(self, name: str) -> RunFolder:
        """Folder of one run."""
        return RunFolder(self.runs / name)

    def run_names(self) -> list[str]:
        """Runs on disk."""
        return _folders_in(self.runs)


@dataclass(frozen=True)
class SweepFolder(FolderOfRuns):
    """Paths of a sweep."""

    @classmethod
    def of(cls, sweep: config.SweepConfig) -> Self:
        """Folder of a configured sweep."""
        return cls(Path(sweep.output_dir) / sweep.name)

    @property
    def index(self) -> Path:
        """Names of the runs, and what varies between them."""
        return self.path / "sweep.json"

    def config_file(self, run: str) -> Path:
        """A run's configuration, as ``rembed train`` takes it."""
        return self.path / "configs" / f"{run}.yaml"

    def record(self, run: str) -> Path:
        """How a run ended, or where it was submitted."""
        return self.path / "ledger" / f"{run}.json"

    @property
    def jobs(self) -> Path:
        """Folder of what a cluster's jobs leave."""
        return self.path / "slurm"


@dataclass(frozen=True)
class ExperimentFolder(FolderOfRuns):
    """Paths of an experiment: its backbones, runs, scores and comparisons."""

    @classmethod
    def of(cls, experiment: config.ExperimentConfig | config.LineageConfig) -> Self:
        """Folder of an experiment, or of a lineage that is grown by itself."""
        return cls(Path(experiment.output_dir) / experiment.name)

    @property
    def lineage(self) -> Path:
        """Folder of the backbones."""
        return self.path / "lineage"

    def stage(self, name: str) -> RunFolder:
        """Folder of one backbone of the lineage: a model itself, with the steps that were kept below it."""
        return RunFolder(self.lineage / name)

    def stage_names(self) -> list[str]:
        """Backbones on disk."""
        return _folders_in(self.lineage)

    def baseline(self, name: str) -> Path:
        """Folder of a baseline's scores."""
        return self.evaluation / name

    def baseline_names(self) -> list[str]:
        """Baselines that were scored, or are being scored."""
        return _folders_in(self.evaluation)

    @property
    def pairs(self) -> Path:
        """Folder of the comparisons of two models."""
        return self.hrsa / "pairs"

    def pair(self, name: str) -> Path:
        """One comparison of two models, as JSON."""
        return self.pairs / f"{name}.json"

    @property
    def realignments(self) -> Path:
        """Folder in which experiments of older versions kept a JSON file a trajectory; now :attr:`track` holds them."""
        return self.hrsa / "realignment"

    @property
    def records(self) -> Path:
        """Folder of the records of finished stages."""
        return self.path / "stages"

    def record(self, stage: str) -> Path:
        """Record of a finished stage: the key of its inputs, the hash of its output."""
        return self.records / f"{stage}.json"

    def aside(self, path: Path) -> Path:
        """Return a free place for a run or backbone of other settings, where nothing takes it for its own.

        Parameters
        ----------
        path : Path
            What is to be kept; it lies in this folder.
        """
        kept = self.path / "set-aside" / path.relative_to(self.path)
        number = 1
        while (place := kept.with_name(f"{kept.name}.{number}")).exists():
            number += 1
        return place


def _steps_in(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(match[1]) for path in folder.iterdir() if (match := _STEP.fullmatch(path.name)))


def _folders_in(parent: Path) -> list[str]:
    """Names of sub-folders, sorted; hidden ones are being written."""
    if not parent.is_dir():
        return []
    return sorted(path.name for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
