"""One training run: its configuration, what it is held against before it costs anything, and its start."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_embedding import config
from reasoning_embedding.checkpoints import ExperimentFolder, RunFolder
from reasoning_embedding.checkpoints.run_records import read_settings
from reasoning_embedding.config.reading.suggestions import did_you_mean
from reasoning_embedding.errors import ContractError, InputError
from reasoning_embedding.files import require_folder
from reasoning_embedding.progress import Report
from reasoning_embedding.secrets import unsealed

from .comparisons import tracking_of
from .contamination import compare_tasks, scored_tasks
from .scoring import training_score

if TYPE_CHECKING:
    from reasoning_embedding.backbones import InputContract
    from reasoning_embedding.data import Table
    from reasoning_embedding.training import Callbacks


def start_training(
    settings: config.RunConfig,
    *,
    experiment: config.ExperimentConfig | None = None,
    text: str | None = None,
    resume: bool = False,
    set_aside: bool = False,
    compare: bool = True,
    callbacks: Callbacks | None = None,
    report: Report = print,
) -> RunFolder:
    """Train one run to its end, by whatever route: the command line, a stage of an experiment, Python.

    Before the first step, siblings' tokens and chat templates are compared, data that the models are scored on are
    refused, and texts that training data and tasks share are counted. While it trains the run is scored on its own
    tasks; after the last step its representation is tracked as its ``hrsa`` section says.

    Parameters
    ----------
    settings : config.RunConfig
        The run; see :func:`run_config` for one of an experiment.
    experiment : config.ExperimentConfig, optional
        What the run belongs to: its siblings, and the tasks that all of them are scored on.
    text : str, optional
        The configuration as written, kept in the run folder.
    resume : bool
        Go on from the newest saved state.
    set_aside : bool
        Move a run of other settings or from another backbone out of the way, rather than refuse it; `experiment`
        is needed.
    compare : bool
        Count the texts that data and tasks share; false where the experiment has done so.
    callbacks : Callbacks, optional
        Functions of a Python program; see :func:`reasoning_embedding.training.train`.
    report : callable
        Takes lines of progress.

    Returns
    -------
    RunFolder
        The run.

    Raises
    ------
    ContractError
        If siblings see other tokens for the same text, or have other chat templates.
    InputError
        For data that the models are scored on, and for whatever else cannot be used.
    TrainingError, StoppedError
        As :func:`reasoning_embedding.training.train`.
    """
    from reasoning_embedding.data.quality.evaluation_sources import (
        refuse_evaluation_rows,
        refuse_evaluation_sources,
    )
    from reasoning_embedding.training import train

    run = RunFolder.of(settings)
    require_folder(run.path)
    tasks = scored_tasks(settings, experiment)
    if experiment is not None:
        check_siblings(experiment)
    refuse_evaluation_sources(settings.data, tasks)
    track = tracking_of(settings, report)
    if experiment is not None and set_aside:
        if _has_other_settings(run, settings) or _has_other_backbone(run, settings):
            move_aside(ExperimentFolder.of(experiment), run.path, report)
    elif resume:
        _refuse_another_backbone(run, settings)

    def examine(table: Table) -> None:
        refuse_evaluation_rows(settings.data, table.sources, tasks)
        if compare and tasks:
            compare_tasks(table, tasks, run.contamination, report)

    score = training_score(settings, report)
    try:
        train(
            settings,
            text=text,
            resume=resume,
            report=report,
            score=score,
            examine=examine,
            callbacks=callbacks,
        )
    finally:
        if score is not None:
            score.store()
    if track is not None:
        track(run)
    return run


def run_config(experiment: config.ExperimentConfig, name: str) -> config.RunConfig:
    """Return one run of an experiment as a run of its own: the shared recipe, its backbone, its readout, its seed.

    Raises
    ------
    InputError
        If the experiment has no such run.
    """
    folder = ExperimentFolder.of(experiment)
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
        backbone = config.PretrainedBackbone(path=str(folder.stage(backbone).path))
    recipe = {field: getattr(experiment.recipe, field) for field in config.Recipe.model_fields}
    recipe["readout"] = experiment.readout(run.readout)
    group = experiment.recipe.logging.group or experiment.name
    recipe["logging"] = experiment.recipe.logging.model_copy(update={"group": group})
    return config.RunConfig(
        name=name, output_dir=str(folder.runs), seed=run.seed, backbone=backbone, **recipe
    )


def check_siblings(experiment: config.ExperimentConfig) -> None:
    """Refuse an experiment whose runs differ in more than it declares: backbone, readout, seed.

    Within a readout all backbones that exist by now must have the same tokens for the same text (an end token and
    prompts are a readout's own) and turn states into a vector in the same way, which a backbone that is an embedder
    may decide where the readout leaves it open.

    Raises
    ------
    ContractError
        Naming the two runs and what differs, or two readouts that are one.
    InputError
        If a backbone cannot have a readout.
    """
    from reasoning_embedding.backbones import check_same_chat_templates

    siblings: dict[str | None, dict[str, _Sibling]] = {}
    seen: set[tuple[str, str | None]] = set()
    for run in experiment.runs:
        settings = run_config(experiment, run.name)
        cell = (settings.backbone.model_dump_json(), run.readout)
        if (
            isinstance(run.backbone, str)
            and not ExperimentFolder.of(experiment).stage(run.backbone).path.is_dir()
        ):
            continue  # a sibling may still grow
        if cell not in seen:
            seen.add(cell)
            siblings.setdefault(run.readout, {})[run.name] = _Sibling.of(settings)
    for readout, members in siblings.items():
        _check_one_readout(members, "backbones" if readout is None else f"readout {readout!r}")
    _check_several_readouts(siblings)
    templates = {name: one.chat_template for members in siblings.values() for name, one in members.items()}
    check_same_chat_templates(templates)


@dataclass(frozen=True)
class _Sibling:
    """What a run reads and how it reads out, before any weight is loaded."""

    backbone: str
    readout: dict[str, Any]
    contract: InputContract
    chat_template: Any

    @classmethod
    def of(cls, settings: config.RunConfig) -> _Sibling:
        from reasoning_embedding.backbones import input_contract, run_readout, run_tokenizer

        chosen = run_readout(settings.readout, settings.backbone)
        tokenizer = run_tokenizer(settings.backbone, chosen)
        readout: dict[str, Any] = asdict(chosen.readout)
        del readout["end_token"]  # known by the tokens
        # A head's input is the backbone's width, or the output of the head before.
        readout["heads"] = [
            {key: value for key, value in head.items() if key != "in_features"} for head in readout["heads"]
        ]
        readout["prompts"] = chosen.prompts.model_dump(exclude={"named"})
        return cls(
            settings.backbone.model_dump_json(),
            readout,
            input_contract(tokenizer, chosen.prompts.texts),
            tokenizer.chat_template,
        )


def _check_one_readout(members: dict[str, _Sibling], where: str) -> None:
    from reasoning_embedding.backbones import check_same_inputs

    (first, one), *others = members.items()
    for name, other in others:
        if differs := [key for key, value in one.readout.items() if other.readout[key] != value]:
            shown = ", ".join(f"{key}: {one.readout[key]} and {other.readout[key]}" for key in differs)
            raise ContractError(
                f"{first!r} and {name!r} read out differently ({shown}), as their backbones do",
                where=where,
                todo=f"say {', '.join(differs)} in the readout, so that all backbones have the same",
            )
    check_same_inputs({name: one.contract for name, one in members.items()}, where)


def _check_several_readouts(siblings: dict[str | None, dict[str, _Sibling]]) -> None:
    found: dict[str, str] = {}
    for name, one in (pair for members in siblings.values() for pair in members.items()):
        same = json.dumps([one.backbone, one.readout, one.contract.token_hash], sort_keys=True)
        if same in found:
            raise ContractError(
                f"{found[same]!r} and {name!r} have two readouts that are one: what one of them says, the other "
                "has from its backbone or by default",
                where="readouts",
                todo="leave one of them out, or let them differ",
            )
        found[same] = name


def move_aside(folder: ExperimentFolder, path: Path, report: Report) -> None:
    """Move what other settings made out of the way, so that it can be made anew and nothing is lost."""
    kept = folder.aside(path)
    kept.parent.mkdir(parents=True, exist_ok=True)
    path.rename(kept)
    report(f"other settings made what was here; it is kept as {kept}")


def _has_other_settings(run: RunFolder, settings: config.RunConfig) -> bool:
    """Whether a run that began was configured otherwise; where its settings are gone or damaged, training finds out."""
    if not run.steps():
        return False
    try:
        saved = unsealed(read_settings(run), config.resolved_json(settings), run.path)
    except InputError:
        return False
    return bool(saved) and bool(config.changed_since(saved, settings))


def _has_other_backbone(run: RunFolder, settings: config.RunConfig) -> bool:
    """Whether a run that began started from other weights than lie at its backbone's path now."""
    from reasoning_embedding.training.run_folder import first_record, parent_record

    if not run.steps():
        return False
    began, now = first_record(run).get("parent") or {}, parent_record(settings.backbone)
    if began.get("content_hash") and now.get("content_hash"):  # wherever it lies
        return began["content_hash"] != now["content_hash"]
    return began != now


def _refuse_another_backbone(run: RunFolder, settings: config.RunConfig) -> None:
    """Stop where a run would go on from a backbone that is another model than the one it started from."""
    backbone = settings.backbone
    if isinstance(backbone, config.RandomBackbone) or not Path(backbone.path).is_dir():
        return  # a backbone that is gone is not needed any more
    # Other settings are refused when training starts, by their names.
    if not _has_other_settings(run, settings) and _has_other_backbone(run, settings):
        raise InputError(
            f"the run there started from another model than the one in {backbone.path} now",
            where=str(run.path),
            todo="move the run's folder away and train anew, or choose another name",
        )
