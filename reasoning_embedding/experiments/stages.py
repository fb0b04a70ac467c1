"""The stages of an experiment: each knows what it needs, what decides it, what it does and what it leaves."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reasoning_embedding import __version__, config
from reasoning_embedding.checkpoints import ExperimentFolder, content_hash
from reasoning_embedding.checkpoints.scores import FILE as SCORES
from reasoning_embedding.config.reading.suggestions import did_you_mean
from reasoning_embedding.config.resolved import evaluation_of_before, with_old_defaults, without_new_keys
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import hash_file
from reasoning_embedding.progress import Report

from .contamination import compare_tasks, scored_tasks
from .training import move_aside, run_config, start_training

#: Settings under these keys name files or folders whose content counts.
_PATH_KEYS = {"path", "paths", "rows", "corpus", "tokenizer", "train", "test"}


class Stage(ABC):
    """One unit of work of an experiment, done in a process of its own.

    Parameters
    ----------
    name : str
        Names its record, its log and its process.
    settings : dict
        What decides its result, as JSON values.
    needs : tuple of str
        Stages that must be finished before, and whose results decide this one's.
    after : tuple of str
        Stages that must be finished before, and decide nothing.
    before : dict, optional
        The settings as versions before wrote them, which knew fewer and had other defaults; absent: the same.
    """

    def __init__(
        self,
        name: str,
        settings: dict[str, Any],
        needs: tuple[str, ...] = (),
        after: tuple[str, ...] = (),
        before: dict[str, Any] | None = None,
    ) -> None:
        self.name, self.settings, self.needs, self.after = name, settings, needs, after
        self._before = settings if before is None else before

    @abstractmethod
    def work(self, folder: ExperimentFolder, report: Report) -> None:
        """Do it; what it makes lies in `folder`."""

    @abstractmethod
    def output(self, folder: ExperimentFolder) -> str | None:
        """Hash of the content of what it made, or None where that is missing."""

    def key(
        self,
        outputs: Mapping[str, str | None],
        hash_of: Callable[[Path], str] = hash_file,
        *,
        as_before: bool = False,
    ) -> str:
        """Hash of all that decides the result: while it stays the same, the stage is not done again.

        Parameters
        ----------
        outputs : mapping
            Output of each stage of ``needs``.
        hash_of : callable
            Hashes the content of a file that the settings name.
        as_before : bool
            The key that versions before gave the stage: what they finished stays finished.
        """
        inputs = {
            "version": __version__,
            "settings": self._before if as_before else self.settings,
            "files": {str(path): hash_of(path) for path in sorted(set(_files_named(self.settings)))},
            "parents": {need: outputs.get(need) for need in self.needs},
        }
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


class Contamination(Stage):
    """Compare the training data with all tasks the models are scored on, before anything is grown or trained."""

    NAME = "contamination"

    def __init__(self, data: config.Data, tasks: list[config.Task]) -> None:
        self.data, self.tasks = data, tasks
        settings = {
            "data": data.model_dump(mode="json"),
            "tasks": [task.model_dump(mode="json") for task in tasks],
        }
        super().__init__(self.NAME, settings, before=without_new_keys(settings))

    def work(self, folder: ExperimentFolder, report: Report) -> None:
        """Refuse data that the models are scored on, and write down which texts both have."""
        from reasoning_embedding.data import load_table
        from reasoning_embedding.data.quality.evaluation_sources import (
            refuse_evaluation_rows,
            refuse_evaluation_sources,
        )

        refuse_evaluation_sources(self.data, self.tasks)
        table = load_table(self.data)
        refuse_evaluation_rows(self.data, table.sources, self.tasks)
        compare_tasks(table, self.tasks, folder.contamination, report)

    def output(self, folder: ExperimentFolder) -> str | None:
        """Hash of ``contamination.json``."""
        return _hash_files(folder, [folder.contamination])


class Grow(Stage):
    """Grow one backbone of the lineage."""

    def __init__(self, lineage: config.Lineage, name: str) -> None:
        self.lineage, self.stage = lineage, name
        grown = next(stage for stage in lineage.stages if stage.name == name)
        self.parent = grown.needs
        tokenizer = lineage.model_dump(mode="json", include={"tokenizer"})
        settings = {"stage": grown.model_dump(mode="json"), **tokenizer}
        twin = getattr(grown, "placebo_of", None)
        needs = tuple(self.of(needed) for needed in (self.parent, twin) if needed is not None)
        super().__init__(self.of(name), settings, needs, before=without_new_keys(settings))

    @staticmethod
    def of(backbone: str) -> str:
        """Name of the stage that grows a backbone."""
        return f"grow-{backbone}"

    def work(self, folder: ExperimentFolder, report: Report) -> None:
        """Grow it; what other settings made there is set aside."""
        from reasoning_embedding.distributed import joined_world
        from reasoning_embedding.lineages import grow_stage, is_current

        target = folder.stage(self.stage).path
        parent = folder.stage(self.parent).path if self.parent else None
        if target.exists() and not is_current(self.lineage, self.stage, target, parent):
            move_aside(folder, target, report)
        with joined_world() as world:
            grow_stage(self.lineage, self.stage, target, parent, report, world)

    def output(self, folder: ExperimentFolder) -> str | None:
        """Hash of the model."""
        model = folder.stage(self.stage).path
        return content_hash(model) if model.is_dir() else None


class Train(Stage):
    """Train one run."""

    def __init__(
        self, experiment: config.ExperimentConfig, run: config.ExperimentRun, after: tuple[str, ...]
    ) -> None:
        self.experiment, self.run = experiment, run.name
        # What its readout says decides, not what it is called.
        own = experiment.recipe.model_copy(update={"readout": experiment.readout(run.readout)})
        recipe = config.resolved_json(own)
        settings = {"run": run.model_dump(mode="json", exclude={"readout"}), "recipe": recipe}
        needs = (Grow.of(run.backbone),) if isinstance(run.backbone, str) else ()
        super().__init__(
            f"train-{run.name}", settings, needs, after, settings | {"recipe": with_old_defaults(recipe)}
        )

    def work(self, folder: ExperimentFolder, report: Report) -> None:
        """Train it, or go on; a run that other settings made there is set aside."""
        start_training(
            run_config(self.experiment, self.run),
            experiment=self.experiment,
            resume=True,
            set_aside=True,
            compare=False,  # the contamination stage has done so
            report=report,
        )

    def output(self, folder: ExperimentFolder) -> str | None:
        """Hash of the last checkpoint's model."""
        run = folder.run(self.run)
        steps = run.steps()
        return content_hash(run.checkpoint(steps[-1])) if steps else None


class Evaluate(Stage):
    """Score the checkpoints of all runs, and the baselines."""

    def __init__(
        self, experiment: config.ExperimentConfig, evaluation: config.Evaluation, needs: tuple[str, ...]
    ) -> None:
        self.experiment, self.evaluation = experiment, evaluation
        settings = evaluation.model_dump(mode="json")
        super().__init__("evaluate", settings, needs, before=evaluation_of_before(settings))

    def work(self, folder: ExperimentFolder, report: Report) -> None:
        """Score what is not scored yet."""
        from reasoning_embedding.distributed import joined_world

        from .scoring import evaluate_runs

        with joined_world() as world:
            evaluate_runs(self.experiment, self.evaluation, folder, report, world)

    def output(self, folder: ExperimentFolder) -> str | None:
        """Hash of all scores."""
        places = [folder.evaluation, *(folder.run(name).evaluation for name in folder.run_names())]
        # Those of compressed vectors lie one folder deeper.
        found = (
            file for place in places for depth in ("*", "*/*") for file in place.glob(f"{depth}/{SCORES}")
        )
        return _hash_files(folder, found)


class Analyze(Stage):
    """Compare the pairs of the analysis."""

    def __init__(self, analysis: config.Analysis, needs: tuple[str, ...]) -> None:
        self.analysis = analysis
        settings = {"analysis": analysis.model_dump(mode="json", exclude={"realignment"})}
        super().__init__(
            "analyze", settings["analysis"], needs, before=without_new_keys(settings)["analysis"]
        )

    def work(self, folder: ExperimentFolder, report: Report) -> None:
        """Compare every pair."""
        from .comparisons import analyze_pairs

        analyze_pairs(self.analysis, folder, report)

    def output(self, folder: ExperimentFolder) -> str | None:
        """Hash of all comparisons."""
        return _hash_files(folder, folder.pairs.glob("*.json"))


class Track(Stage):
    """Follow the trajectories of the analysis."""

    def __init__(self, analysis: config.Analysis, needs: tuple[str, ...]) -> None:
        self.analysis = analysis
        settings = {"analysis": analysis.model_dump(mode="json", exclude={"pairs", "seed_band"})}
        super().__init__("track", settings["analysis"], needs, before=without_new_keys(settings)["analysis"])

    def work(self, folder: ExperimentFolder, report: Report) -> None:
        """Follow every trajectory."""
        from .comparisons import follow_runs

        follow_runs(self.analysis, folder, report)

    def output(self, folder: ExperimentFolder) -> str | None:
        """Hash of all trajectories."""
        # Experiments of older versions left a JSON file a trajectory.
        return _hash_files(folder, [folder.track, *folder.realignments.glob("*.json")])


def plan_stages(experiment: config.ExperimentConfig) -> list[Stage]:
    """List an experiment's stages, parents first."""
    stages: list[Stage] = []
    before: tuple[str, ...] = ()
    if tasks := scored_tasks(experiment):
        # First, so that a refusal comes before anything is grown; a new task must not train the runs anew.
        stages.append(Contamination(experiment.recipe.data, tasks))
        before = (Contamination.NAME,)
    if (lineage := experiment.lineage) is not None:
        stages += [Grow(lineage, stage.name) for stage in lineage.stages]
        # Siblings that see other tokens are refused before any of them is trained.
        given = (stage.name for stage in lineage.stages if isinstance(stage, config.GivenStage))
        before += tuple(map(Grow.of, given))
    stages += [Train(experiment, run, before) for run in experiment.runs]
    models = tuple(stage.name for stage in stages if stage.name != Contamination.NAME)
    # What measures the finished models; these run side by side.
    if experiment.evaluation is not None:
        stages.append(Evaluate(experiment, experiment.evaluation, models))
    if (analysis := experiment.analysis) is not None and analysis.pairs:
        stages.append(Analyze(analysis, models))
    if analysis is not None and analysis.realignment:
        stages.append(Track(analysis, models))
    return stages


def find_stage(experiment: config.ExperimentConfig, name: str) -> Stage:
    """Return the stage of that name.

    Raises
    ------
    InputError
        If the experiment has none.
    """
    stages = {stage.name: stage for stage in plan_stages(experiment)}
    if name not in stages:
        raise InputError(
            f"no stage {name!r} in this experiment{did_you_mean(name, stages)}",
            where=experiment.name,
            todo=f"choose one of {', '.join(stages)}",
        )
    return stages[name]


def _hash_files(folder: ExperimentFolder, paths: Iterable[Path]) -> str | None:
    """Hash the content and the place of files; None where there are none."""
    digest = hashlib.sha256()
    found = sorted(path for path in paths if path.is_file())
    for path in found:
        digest.update(f"{path.relative_to(folder.path)}\0{hash_file(path)}\n".encode())
    return digest.hexdigest() if found else None


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
