"""What is known of a sweep's runs: written by whoever ends one, read from the run folders otherwise.

Nothing is kept that a SIGKILL could leave wrong: a run is running while a process holds its lock, finished when
its last checkpoint is there, interrupted when it began and neither holds. Only what no folder can tell, that a
run failed and why, or that it waits in a cluster's queue, is a record of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder, SweepFolder
from reasoning_embedding.checkpoints.locks import is_held, take_turns
from reasoning_embedding.checkpoints.scores import read_best, scores_by_step
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_write, hash_file, read_json, read_json_lines, write_json

State = Literal["waiting", "submitted", "running", "interrupted", "failed", "finished"]


@dataclass(frozen=True)
class Outcome:
    """How far a run is, what it measured, and what a failed or submitted one left to say."""

    run: config.SweepRun
    state: State
    value: float | None
    step: int | None
    note: str = ""
    best_step: int | None = None


class SweepLedger:
    """The runs of a sweep, below its folder.

    Parameters
    ----------
    folder : Path
        The sweep's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = SweepFolder(folder)

    def write(self, sweep: config.SweepConfig, runs: Sequence[config.SweepRun], text: str | None) -> None:
        """Write the sweep and a configuration a run, before anything is launched."""
        with take_turns(self.folder.path / ".lock-write"):  # parts of a sweep start at the same moment
            if text is not None:
                atomic_write(self.folder.config_yaml, text)
            write_json(self.folder.config_json, config.resolved_json(sweep), summed=True)
            for run in runs:
                if not _is_of((file := self.folder.config_file(run.name)), run.config):
                    atomic_write(file, config.to_yaml(run.config))
            points = [
                {
                    "name": run.name,
                    "point": run.point,
                    "config_sha256": hash_file(self.folder.config_file(run.name)),
                }
                for run in runs
            ]
            write_json(self.folder.index, {"runs": points}, summed=True)

    def runs(self) -> list[config.SweepRun]:
        """Read the runs back.

        Raises
        ------
        InputError
            If this is no sweep's folder, or a run's configuration there is not the one that was written.
        """
        index = _read(self.folder.index)
        if "runs" not in index:
            raise InputError(
                "no sweep lies here", where=str(self.folder.path), todo="run `rembed sweep CONFIG` first"
            )
        for entry in index["runs"]:
            file, wanted = self.folder.config_file(entry["name"]), entry.get("config_sha256")
            if wanted is not None and not (file.is_file() and hash_file(file) == wanted):
                raise InputError(
                    "the file was changed after it was written",
                    where=str(file),
                    todo="run `rembed sweep CONFIG` again, which writes it anew",
                )
        return [
            config.SweepRun(
                entry["name"],
                entry["point"],
                config.load_config(self.folder.config_file(entry["name"]), expect=config.RunConfig).config,
            )
            for entry in index["runs"]
        ]

    def record(self, name: str, state: Literal["submitted", "failed", "finished"], note: str = "") -> None:
        """Note how a run ended, or where it was submitted."""
        write_json(self.folder.record(name), {"state": state, "note": note}, summed=True)

    def forget(self, name: str) -> None:
        """Let a run count as neither failed nor submitted, because it is started now."""
        self.folder.record(name).unlink(missing_ok=True)

    def state(self, run: config.SweepRun) -> tuple[State, str]:
        """How far a run is, and the note of its record."""
        folder, record = self.folder.run(run.name), _read(self.folder.record(run.name))
        note, recorded = str(record.get("note", "")), record.get("state")
        if is_held(folder.lock):
            return "running", ""
        if trained(folder) and (recorded == "finished" or run.config.hrsa is None):
            return "finished", ""
        if recorded == "failed":
            return "failed", note
        if folder.steps():
            return "interrupted", ""
        return ("submitted", note) if recorded == "submitted" else ("waiting", "")

    def outcome(self, sweep: config.SweepConfig, run: config.SweepRun) -> Outcome:
        """How far a run is, and what it measured if it is finished."""
        state, note = self.state(run)
        folder = self.folder.run(run.name)
        value = measured(folder, sweep.metric) if state == "finished" else None
        best = read_best(folder) if state == "finished" else None
        return Outcome(run, state, value, max(folder.steps(), default=None), note, (best or {}).get("step"))


def _is_of(file: Path, settings: config.RunConfig) -> bool:
    """Whether a file holds these settings; a damaged one would train something else under the run's name."""
    try:
        there = config.load_config(file, expect=config.RunConfig).config if file.exists() else None
    except InputError:
        return False
    return there is not None and config.resolved_json(there) == config.resolved_json(settings)


def trained(run: RunFolder) -> bool:
    """Whether a run's last planned step is saved."""
    planned = _read(run.manifest).get("steps")
    return planned is not None and planned in run.steps()


def measured(run: RunFolder, metric: str | None) -> float | None:
    """Value of a metric at the last step that logged it; without a metric the best score, or else the loss.

    Parameters
    ----------
    run : RunFolder
        A run that has ended.
    metric : str or None
        A key of ``metrics.jsonl``, or ``evaluation.TASK`` for a task that the run was scored on, also afterwards.
    """
    if metric is None:
        if (score := _number((read_best(run) or {}).get("score"))) is not None:
            return score
        metric = "loss"
    for record in reversed(read_json_lines(run.metrics)):
        if (value := _number(_within(record, metric))) is not None:
            return value
    part, _, task = metric.partition(".")
    for scores in reversed(scores_by_step(run).values()) if part == "evaluation" else ():
        for entry in scores["tasks"]:
            if entry["task"] == task and (value := _number(entry.get("main_score"))) is not None:
                return value
    return None


def _within(record: Any, key: str) -> Any:
    if not isinstance(record, dict):
        return None
    if key in record:
        return record[key]
    head, _, rest = key.partition(".")
    return _within(record.get(head), rest) if rest else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, default={}, todo="delete the file; what the run folders hold stays known")
