"""Running an experiment: grow, train, evaluate, analyse, each stage once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from reasoning_embedding import config
from reasoning_embedding.checkpoints.locks import hold
from reasoning_embedding.config.reading.suggestions import did_you_mean
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_write, write_json

from .scheduler import run_stages
from .stages import Ledger, plan_stages

_RESOLVED = "config.resolved.json"


def run_experiment(
    experiment: config.ExperimentConfig, *, text: str | None = None, report: Callable[[str], None] = print
) -> Path:
    """Run every stage that is not done yet and return the experiment's folder.

    Parameters
    ----------
    experiment : config.ExperimentConfig
        What to run.
    text : str, optional
        The configuration as written, kept in the folder.
    report : callable
        Takes lines of progress.

    Raises
    ------
    InputError
        If another process runs it.
    StageError
        When a stage fails; what is finished stays.
    """
    folder = Path(experiment.output_dir) / experiment.name
    stages = plan_stages(experiment)
    with hold(
        folder / ".lock", refusal="another process runs this experiment", todo="wait for it, or change name"
    ):
        if text is not None:
            atomic_write(folder / "config.yaml", text)
        write_json(folder / _RESOLVED, experiment.model_dump(mode="json"))
        run_stages(folder, stages, Ledger(folder, stages), jobs=experiment.jobs, report=report)
    return folder


def read_experiment(folder: Path) -> config.ExperimentConfig:
    """Read an experiment back from its folder."""
    return config.ExperimentConfig.model_validate(
        json.loads((folder / _RESOLVED).read_text(encoding="utf-8"))
    )


def run_config(experiment: config.ExperimentConfig, name: str) -> config.RunConfig:
    """Return one run of an experiment as a run of its own: the shared recipe, its backbone, its seed.

    Raises
    ------
    InputError
        If the experiment has no such run.
    """
    folder = Path(experiment.output_dir) / experiment.name
    runs = {run.name: run for run in experiment.runs}
    if name not in runs:
        raise InputError(
            f"no run {name!r} in this experiment{did_you_mean(name, runs)}",
            where=experiment.name,
            todo=f"choose one of {', '.join(runs)}",
        )
    run = runs[name]
    backbone = run.backbone
    if isinstance(backbone, str):
        backbone = config.PretrainedBackbone(path=str(folder / "lineage" / backbone))
    recipe = {field: getattr(experiment.recipe, field) for field in config.Recipe.model_fields}
    group = experiment.recipe.logging.group or experiment.name
    recipe["logging"] = experiment.recipe.logging.model_copy(update={"group": group})
    return config.RunConfig(
        name=name, output_dir=str(folder / "runs"), seed=run.seed, backbone=backbone, **recipe
    )
