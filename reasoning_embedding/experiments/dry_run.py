"""What an experiment would start, and what it would cost, without starting it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reasoning_embedding import config
from reasoning_embedding.errors import InputError

from .training import run_config

#: Configuration of the launcher for each engine the cost model knows, on eight GPUs.
_LAUNCHERS = {"fsdp2": "8gpu-fsdp2", "zero2": "8gpu-zero2", "replicated": "8gpu-ddp"}


def planned_runs(experiment: config.ExperimentConfig, *, gpus: int, gpu: str) -> dict[str, dict[str, Any]]:
    """Return what every run would cost: by name, what :func:`reasoning_embedding.planning.plan.cost` returns.

    Parameters
    ----------
    experiment : config.ExperimentConfig
        A run on a given stage counts with the checkpoint that the stage names.
    gpus : int
        Ranks.
    gpu : str
        Which GPU.

    Raises
    ------
    InputError
        If a backbone's sizes are not known, and no sibling's are.
    """
    from reasoning_embedding.planning.plan import cost
    from reasoning_embedding.planning.shapes import backbone_shape
    from reasoning_embedding.planning.texts import run_texts

    settings = {run.name: _settings(experiment, run) for run in experiment.runs}
    shapes, refused = {}, None
    for name, one in settings.items():
        try:
            shapes[name] = backbone_shape(one.backbone)
        except InputError as error:
            refused = error
    if refused is not None and not shapes:
        raise refused
    texts = run_texts(next(iter(settings.values())))  # the data is the same for all
    sibling = next(iter(shapes.values()))
    return {
        name: cost(one, shapes.get(name, sibling), texts, gpus=gpus, gpu=gpu)
        for name, one in settings.items()
    }


def chosen_engine(found: dict[str, Any]) -> str:
    """Return the fastest engine that fits and has a launcher's configuration here; FSDP2 where none fits."""
    engines = {name: one for name, one in found["engines"].items() if name in _LAUNCHERS}
    fitting = [name for name, one in engines.items() if one["fits"]]
    if fitting:
        return min(fitting, key=lambda name: engines[name]["step_seconds"])
    return "fsdp2" if "fsdp2" in engines else next(iter(engines))


def launch_commands(
    experiment: config.ExperimentConfig, path: Path, costs: dict[str, dict[str, Any]], *, gpus: int
) -> list[str]:
    """Return the commands that run the experiment on several GPUs of one machine, in their order.

    Parameters
    ----------
    experiment : config.ExperimentConfig
        Its lineage and runs.
    path : Path
        The experiment's file.
    costs : dict
        What :func:`planned_runs` returned.
    gpus : int
        Processes of each run.
    """
    launch = (
        "accelerate launch --config_file configs/accelerate/{}.yaml --num_processes {} -m reasoning_embedding"
    )
    commands = [f"rembed grow {path}"] if experiment.lineage is not None else []
    for name, found in costs.items():
        launcher = _LAUNCHERS[chosen_engine(found)]
        commands.append(f"{launch.format(launcher, gpus)} train {path} --run {name} --resume")
    # The runs are found done; what is left are scores, comparisons and the page.
    return [*commands, f"rembed experiment {path}"]


def _settings(experiment: config.ExperimentConfig, run: config.ExperimentRun) -> config.RunConfig:
    """Return a run's configuration with the backbone that its stage will have been grown from."""
    settings = run_config(experiment, run.name)
    if not isinstance(run.backbone, str) or experiment.lineage is None:
        return settings
    stages = {stage.name: stage for stage in experiment.lineage.stages}
    stage = stages[run.backbone]
    while not isinstance(stage, config.GivenStage | config.PretrainStage):
        stage = stages[stage.parent]
    if isinstance(stage, config.GivenStage):
        backbone = config.PretrainedBackbone(path=stage.path, revision=stage.revision)
    else:
        backbone = config.RandomBackbone(kind="random", architecture=stage.architecture, tokenizer=stage.name)
    return settings.model_copy(update={"backbone": backbone})
