"""``rembed evaluate``: scores of a checkpoint, or of a run's checkpoints."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import require_folder

from ._app import DeviceName
from ._terminal import next_command
from .embed import Quantize

if TYPE_CHECKING:
    from reasoning_embedding.checkpoints import RunFolder
    from reasoning_embedding.checkpoints.references import ResolvedModel
    from reasoning_embedding.config import Evaluation


def command(
    models: Annotated[
        list[str],
        typer.Argument(
            help="A checkpoint, a run folder, RUN@STEP, or any embedder: a folder or OWNER/NAME@REVISION. "
            "With --compare two of them.",
            metavar="MODEL|RUN",
        ),
    ],
    task: Annotated[
        list[Path] | None,
        typer.Option(
            "--task",
            "-t",
            help="A BEIR-style folder, or a CSV or TSV of sentence pairs with a similarity; may be given again.",
        ),
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option("--suite", "-s", help="A benchmark or task of mteb, such as 'MTEB(eng, v2)'; again."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="An experiment's YAML: the tasks and settings of its evaluation."
        ),
    ] = None,
    instructions: Annotated[
        Path | None, typer.Option(help="JSON: task -> instruction, or {query, document}.")
    ] = None,
    query_prompt: Annotated[
        str | None, typer.Option(help="Put before queries. Absent: the model's own prompt.")
    ] = None,
    document_prompt: Annotated[
        str | None, typer.Option(help="Put before documents. Absent: the model's own prompt.")
    ] = None,
    steps: Annotated[
        str | None, typer.Option(help="Of a run: ends, all, best, or steps such as 0,200. Absent: ends.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Absent: the run's own evaluation folder.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longer texts are cut. Absent: at the model's own limit.")
    ] = None,
    truncate: Annotated[
        int | None, typer.Option(min=1, help="Keep the first entries of each vector, at unit length again.")
    ] = None,
    quantize: Annotated[
        Quantize | None, typer.Option(help="Score int8 or binary codes of the vectors.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Two models query by query: wins, losses, interval, texts.")
    ] = False,
    device: DeviceName = "auto",
) -> None:
    """Score checkpoints on tasks; what is scored already is not scored again.

    Raises
    ------
    InputError
        If a task or checkpoint cannot be read.
    SetupError
        If a model of the Hub cannot be reached.
    ReasoningEmbeddingError
        If a task failed; the others are scored.
    """
    from ._terminal import silence_libraries, speaker

    if len(models) != 1 + compare:
        raise InputError(
            f"{len(models)} models", todo="name one, or two with --compare" if not compare else "name two"
        )
    if output is not None:
        require_folder(output)
    silence_libraries()
    prompts = {"query": query_prompt, "document": document_prompt}
    changes: dict[str, Any] = {
        "instructions": None if instructions is None else str(instructions),
        "prompts": {side: text for side, text in prompts.items() if text is not None} or None,
        "steps": None if steps is None else _steps(steps),
        "max_tokens": max_tokens,
        "truncate": truncate,
        "quantize": quantize and quantize.value,
    }
    evaluation = evaluation_section(config, task or [], suite or [], changes, of_run=_own_tasks(models))
    targets = _targets(models, evaluation, output, compare=compare)
    from reasoning_embedding.distributed import joined_world
    from reasoning_embedding.evaluation.run import folder_of
    from reasoning_embedding.experiments.scoring import failures, query_template, score_model, tasks_failed

    failed: list[str] = []
    with joined_world(device=device) as world:
        for target in targets:
            scores = score_model(
                target.model,
                evaluation,
                target.folder,
                name=target.name,
                step=target.model.provenance.get("step"),
                template=query_template(target.run),
                report=speaker(),
                world=world,
            )
            if world.is_main:
                _print(target.label, scores, folder_of(target.folder, evaluation))
            failed += failures(scores, target.label)
        if compare and world.is_main:
            _compare(targets, evaluation, output or targets[1].folder)
    if failed:
        raise tasks_failed(failed)
    if world.is_main and models and targets[0].run.manifest.is_file():
        next_command("evaluate", run=targets[0].run.path)


@dataclass(frozen=True)
class ScoredModel:
    """A model to be scored: what it is called, where its scores go, and the run whose template its queries have."""

    model: ResolvedModel
    label: str
    name: str
    folder: Path
    run: RunFolder


def _targets(
    references: list[str], evaluation: Evaluation, output: Path | None, *, compare: bool
) -> list[ScoredModel]:
    """Find the models, before any of them costs time."""
    from reasoning_embedding.checkpoints import RunFolder, step_name
    from reasoning_embedding.checkpoints.references import resolve, series_of_steps, step_of
    from reasoning_embedding.experiments.scoring import chosen_steps

    targets = []
    for reference in references:
        run = series_of_steps(reference)
        if run is not None and not compare:
            for step in chosen_steps(run, evaluation.steps):
                model = step_of(run, str(step), f"{reference}@{step}")
                folder = (output or run.evaluation) / step_name(step)
                targets.append(ScoredModel(model, model.folder.name, run.path.resolve().name, folder, run))
            continue
        model = resolve(reference)
        own = RunFolder(Path(model.path).resolve().parent.parent)
        if model.run is not None and (compare or output is None):
            folder = model.run.evaluation / step_name(model.step or 0)
        elif output is not None:
            folder = output / _folder_name(reference) if compare else output
        elif model.provenance and not compare:
            folder = own.evaluation / model.folder.name
        else:
            raise InputError(
                "it was not made here, so its scores need a folder",
                where=reference,
                todo="name one: -o FOLDER",
            )
        name = model.provenance.get("run") or Path(model.path).resolve().name
        label = reference if compare else Path(model.path).name
        targets.append(ScoredModel(model, label, name, folder, own))
    if compare and targets[0].folder == targets[1].folder:
        raise InputError(f"{references[0]} and {references[1]} are one model", todo="name two different ones")
    return targets


def _folder_name(reference: str) -> str:
    """A reference as the name of a folder."""
    return re.sub(r"[^\w.@-]+", "__", reference.strip("./"))


def _own_tasks(references: list[str]) -> RunFolder | None:
    """The run, or one of the runs, whose own tasks count where the user names none."""
    from reasoning_embedding.checkpoints import RunFolder
    from reasoning_embedding.config.references import parse

    for reference in references:
        run = RunFolder(Path(parse(reference).name))
        for found in (run, RunFolder(Path(reference).resolve().parent.parent)):
            if found.config_json.is_file():
                return found
    return None


def _compare(targets: list[ScoredModel], evaluation: Evaluation, output: Path) -> None:
    from reasoning_embedding.evaluation.run import folder_of, query_texts
    from reasoning_embedding.reports.grid import terminal_width
    from reasoning_embedding.reports.side_by_side import side_by_side, to_terminal, write_comparison

    names = [target.label for target in targets]
    folders = [folder_of(target.folder, evaluation) for target in targets]
    found = side_by_side(names, folders, query_texts(evaluation))
    typer.echo(to_terminal(found, terminal_width()))
    for path in write_comparison(output, found):
        typer.echo(f"written: {path}")


def evaluation_section(
    config: Path | None,
    paths: list[Path],
    suites: list[str],
    changes: dict[str, Any],
    *,
    of_run: RunFolder | None = None,
) -> Evaluation:
    """Return the evaluation section of a file with the options in it: options win, tasks are added.

    Parameters
    ----------
    config : Path or None
        The file.
    paths, suites : list
        Tasks of the options: folders or files, and names that mteb knows.
    changes : dict
        Keys of the section -> value of an option; None where it was not given.
    of_run : RunFolder, optional
        The run that is scored: where neither file nor options name a task, the tasks it was scored on while it trained.

    Raises
    ------
    InputError
        If the file has no such section, or there is nothing to score on.
    """
    from reasoning_embedding.config import (
        BeirTask,
        ChoiceTask,
        Evaluation,
        ExperimentConfig,
        StsTask,
        SuiteTask,
        load_config,
    )

    section: Evaluation | None = None
    if config is not None:
        section = load_config(config, expect=ExperimentConfig).config.evaluation
        if section is None:
            raise InputError("the file has no section 'evaluation'", where=str(config), todo="add its tasks")
    tasks: list[Any] = [*section.tasks] if section else []
    for path in paths:
        if any((path / f"candidates.jsonl{ending}").is_file() for ending in ("", ".gz")):
            tasks.append(ChoiceTask(kind="choice", path=str(path)))
        elif Path(path.name.removesuffix(".gz")).suffix in (".csv", ".tsv"):
            tasks.append(StsTask(kind="sts", path=str(path)))
        else:
            tasks.append(BeirTask(kind="beir", path=str(path)))
    tasks += [SuiteTask(kind="mteb", name=name) for name in suites]
    if not tasks and of_run is not None:
        own = _section_of_run(of_run)
        tasks = own.pop("tasks", [])
        changes = own | {name: value for name, value in changes.items() if value is not None}
    if not tasks:
        raise InputError(
            "nothing to score on",
            todo="give --task FOLDER, --suite NAME or --config FILE; a run that was scored while it trained has its own",
        )
    changes = {name: value for name, value in changes.items() if value is not None} | {"tasks": tasks}
    return section.model_copy(update=changes) if section else Evaluation(**changes)


def _section_of_run(run: RunFolder) -> dict[str, Any]:
    """What a run's own evaluation section says that decides a score."""
    from reasoning_embedding.config import TrainingEvaluation
    from reasoning_embedding.files import read_json

    found = read_json(run.config_json, default={}).get("evaluation")
    if not isinstance(found, dict) or found.get("kind") or "every" not in found:
        return {}
    section = TrainingEvaluation.model_validate(found)
    from reasoning_embedding.experiments.scoring import tasks_of_run

    tasks = tasks_of_run(run, section.tasks)
    return {"tasks": tasks, "max_tokens": section.max_tokens, "pack_tokens": section.pack_tokens}


def _print(checkpoint: str, scores: dict[str, Any], folder: Path) -> None:
    for entry in scores["tasks"]:
        metric = entry.get("main_metric", "score").replace("ndcg_at_", "nDCG@")
        choice = f"  choice accuracy {entry['choice_accuracy']:.4f}" if "choice_accuracy" in entry else ""
        typer.echo(f"{checkpoint}  {entry['task']}  {metric} {entry['main_score']:.4f}{choice}")
    means = {"": scores["means"], **scores["means"]["suites"]}
    for suite, found in means.items():
        if found["by_task"] is not None and len(scores["tasks"]) > 1:
            shown = f"mean by task {found['by_task']:.4f}, by type {found['by_type']:.4f}"
            typer.echo(f"{checkpoint}  {suite}{'  ' if suite else ''}{shown}")
    how = scores["settings"]
    parts = [
        f"prompts: {how['prompts_from']}",
        f"at most {how['max_tokens']} tokens" if how["max_tokens"] else "no limit of tokens",
        f"{how['dtype']}",
        f"{how['dimension']} entries, {how['bytes_per_vector']} bytes a vector",
    ]
    typer.echo(f"asked: {'; '.join(parts)}")
    typer.echo(f"scores: {folder / 'scores.json'}")


def _steps(text: str) -> str | list[int]:
    if text in ("ends", "all", "best"):
        return text
    try:
        return [int(step) for step in text.split(",")]
    except ValueError as error:
        raise InputError(
            f"cannot read {text!r} as steps", where="--steps", todo="ends, all, best, or 0,200"
        ) from error
