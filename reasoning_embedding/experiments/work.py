"""One stage of an experiment, done in this process: ``python -m reasoning_embedding.experiments.work FOLDER STAGE``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder, read_provenance
from reasoning_embedding.errors import InputError, ReasoningEmbeddingError

from .analyses import analyze_pairs, follow_runs
from .contamination import CONTAMINATION, compare_tasks, scored_tasks
from .evaluations import evaluate_runs
from .runner import read_experiment, run_config
from .scoring import training_score
from .tracking import tracking_of

Report = Callable[[str], None]


def work(folder: Path, name: str, report: Report) -> None:
    """Do one stage of the experiment in `folder`.

    Raises
    ------
    InputError
        If the experiment has no such stage.
    """
    experiment = read_experiment(folder)
    kind, _, rest = name.partition("-")
    if name == CONTAMINATION:
        _contamination(experiment, folder, report)
    elif kind == "grow":
        _grow(experiment, folder, rest, report)
    elif kind == "train":
        _train(experiment, rest, report)
    elif name == "evaluate" and experiment.evaluation is not None:
        _evaluate(experiment, experiment.evaluation, folder, report)
    elif name == "analyze" and experiment.analysis is not None:
        analyze_pairs(experiment.analysis, folder, report)
    elif name == "track" and experiment.analysis is not None:
        follow_runs(experiment.analysis, folder, report)
    else:
        raise InputError(f"no stage {name!r} in this experiment", where=str(folder))


def _contamination(experiment: config.ExperimentConfig, folder: Path, report: Report) -> None:
    from reasoning_embedding.data import load_table
    from reasoning_embedding.data.quality.evaluation_sources import (
        refuse_evaluation_rows,
        refuse_evaluation_sources,
    )

    data, tasks = experiment.recipe.data, scored_tasks(experiment)
    refuse_evaluation_sources(data, tasks)
    table = load_table(data)
    refuse_evaluation_rows(data, table.sources, tasks)
    compare_tasks(table, tasks, RunFolder(folder).contamination, report)


def _grow(experiment: config.ExperimentConfig, folder: Path, name: str, report: Report) -> None:
    from reasoning_embedding.distributed import joined_world
    from reasoning_embedding.lineages import grow_stage, is_current

    if experiment.lineage is None:
        raise InputError("this experiment grows nothing", where=str(folder))
    stage = next(stage for stage in experiment.lineage.stages if stage.name == name)
    target = folder / "lineage" / name
    parent = folder / "lineage" / stage.needs if stage.needs else None
    if target.exists() and not is_current(experiment.lineage, name, target, parent):
        _set_aside(target, report)
    with joined_world() as world:
        grow_stage(experiment.lineage, name, target, parent, report, world)


def _train(experiment: config.ExperimentConfig, name: str, report: Report) -> None:
    from reasoning_embedding.training import train

    settings = run_config(experiment, name)
    _check_inputs(experiment)
    _set_aside_stale(settings, report)
    track = tracking_of(settings, report)
    run = train(settings, resume=True, report=report, score=training_score(settings, report))
    if track is not None:
        track(run)


def _evaluate(
    experiment: config.ExperimentConfig, evaluation: config.Evaluation, folder: Path, report: Report
) -> None:
    from reasoning_embedding.distributed import joined_world

    with joined_world() as world:
        evaluate_runs(experiment, evaluation, folder, report, world)


def _check_inputs(experiment: config.ExperimentConfig) -> None:
    """Refuse to train while any two backbones that exist by now see different tokens for the same text."""
    from reasoning_embedding.backbones import (
        check_same_chat_templates,
        check_same_inputs,
        input_contract,
        load_tokenizer,
    )

    tokenizers = {}
    for run in experiment.runs:
        backbone = run_config(experiment, run.name).backbone
        if isinstance(backbone, config.RandomBackbone):
            tokenizers[run.name] = load_tokenizer(backbone.tokenizer)
        elif not isinstance(run.backbone, str) or Path(backbone.path).is_dir():  # a sibling may still grow
            tokenizers[run.name] = load_tokenizer(backbone.path, revision=backbone.revision)
    check_same_inputs({name: input_contract(tokenizer) for name, tokenizer in tokenizers.items()})
    check_same_chat_templates({name: tokenizer.chat_template for name, tokenizer in tokenizers.items()})


def _set_aside_stale(settings: config.RunConfig, report: Report) -> None:
    """Move away a run made with other settings or from another backbone; an unfinished one of these stays."""
    from reasoning_embedding.training.run_folder import parent_record

    run = RunFolder(Path(settings.output_dir) / settings.name)
    if not run.steps():
        return
    same = run.config_json.exists() and not config.changed_since(
        json.loads(run.config_json.read_text(encoding="utf-8")), settings
    )
    record = read_provenance(run.checkpoint(run.steps()[0])) or {}
    if not same or record.get("parent") != parent_record(settings.backbone):
        _set_aside(run.path, report)


def _set_aside(path: Path, report: Report) -> None:
    """Move what other settings made out of the way, so that it can be made anew and nothing is lost.

    It goes to ``set-aside`` beside the folder it lay in, where no stage and no report takes it for its own.
    """
    folder = path.parent.with_name("set-aside") / path.parent.name
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while (kept := folder / f"{path.name}.{number}").exists():
        number += 1
    path.rename(kept)
    report(f"other settings made what was here; it is kept as {kept}")


def main() -> int:
    """Do the stage the command line names; the exit code says how it ended."""
    try:
        work(Path(sys.argv[1]), sys.argv[2], lambda line: print(line, flush=True))  # noqa: T201
    except ReasoningEmbeddingError as error:
        print(f"error: {error}", flush=True)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
