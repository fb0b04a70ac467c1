"""Where things lie in a run folder; the one place that knows its names."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from reasoning_embedding.files import PARTIAL, remove_folder

_STEP = re.compile(r"step-(\d{6,})")


def step_name(step: int) -> str:
    """Folder name of a step: ``step-000200``."""
    return f"step-{step:06d}"


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run; nothing is created by asking for them."""

    path: Path

    @property
    def experiment(self) -> Path:
        """Folder of the experiment it belongs to; of a lone run the folder that it and its siblings lie in."""
        home = self.path.resolve().parent
        return home.parent if home.name == "runs" else home

    @property
    def config_yaml(self) -> Path:
        """The configuration as written."""
        return self.path / "config.yaml"

    @property
    def config_json(self) -> Path:
        """The configuration with every default filled in."""
        return self.path / "config.resolved.json"

    @property
    def manifest(self) -> Path:
        """Versions, data fingerprint, token hash, seeds, hardware."""
        return self.path / "manifest.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a logged step."""
        return self.path / "metrics.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the process that trains here."""
        return self.path / ".lock"

    @property
    def best(self) -> Path:
        """Which step scored best while training, by what score."""
        return self.path / "best.json"

    @property
    def contamination(self) -> Path:
        """Evaluation texts that also stand in the training data."""
        return self.path / "contamination.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the models."""
        return self.path / "checkpoints"

    @property
    def states(self) -> Path:
        """Folder of the optimizer states."""
        return self.path / "state"

    @property
    def evaluation(self) -> Path:
        """Folder of the scores."""
        return self.path / "evaluation"

    @property
    def track(self) -> Path:
        """How the representation moved, one row a step, reference, layer and metric."""
        return self.path / "hrsa" / "track.parquet"

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


def _steps_in(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(match[1]) for path in folder.iterdir() if (match := _STEP.fullmatch(path.name)))


def prune_states(run: RunFolder, keep: int) -> None:
    """Delete all but the newest `keep` states, and what a killed process left of others; checkpoints stay."""
    for step in run.state_steps()[:-keep]:
        remove_folder(run.state(step))
    for left in run.states.glob(f".*{PARTIAL}"):
        shutil.rmtree(left, ignore_errors=True)


def newest_resumable(run: RunFolder) -> int | None:
    """Newest step that has both a state and a checkpoint, or None."""
    both = set(run.state_steps()) & set(run.steps())
    return max(both, default=None)
