"""``rembed evaluate``: scores of a checkpoint, or of a run's checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import require_folder

if TYPE_CHECKING:
    from reasoning_embedding.config import Evaluation


def command(
    model: Annotated[
        str,
        typer.Argument(
            help="A checkpoint, a run folder, RUN@STEP, or any embedder: a folder or OWNER/NAME@REVISION.",
            metavar="MODEL|RUN",
        ),
    ],
    task: Annotated[
        list[Path] | None, typer.Option("--task", "-t", help="A BEIR-style folder; may be given again.")
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
    steps: Annotated[
        str | None, typer.Option(help="Of a run: ends, all, best, or steps such as 0,200. Absent: ends.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Absent: the run's own evaluation folder.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longer texts are cut. Absent: 512.")] = None,
) -> None:
    """Score checkpoints on tasks; what is scored already is not scored again.

    Raises
    ------
    InputError
        If a task or checkpoint cannot be read.
    ReasoningEmbeddingError
        If a task failed; the others are scored.
    """
    from ._terminal import silence_libraries, speaker

    if output is not None:
        require_folder(output)
    silence_libraries()
    evaluation = evaluation_section(
        config, task or [], suite or [], instructions=instructions, steps=steps, max_tokens=max_tokens
    )
    from reasoning_embedding.checkpoints import RunFolder, step_name
    from reasoning_embedding.checkpoints.references import resolve, series_of_steps, step_of
    from reasoning_embedding.distributed import joined_world
    from reasoning_embedding.experiments.scoring import (
        chosen_steps,
        failures,
        query_template,
        score_model,
        tasks_failed,
    )

    run = series_of_steps(model)
    if run is not None:
        targets = [
            (step_of(run, str(step), f"{model}@{step}"), (output or run.evaluation) / step_name(step))
            for step in chosen_steps(run, evaluation.steps)
        ]
        name = run.path.resolve().name
    else:
        found = resolve(model)
        if output is None and not found.provenance:
            raise InputError(
                "it was not made here, so its scores need a folder", where=model, todo="name one: -o FOLDER"
            )
        targets = [(found, output or RunFolder(found.folder.parent.parent).evaluation / found.folder.name)]
        name = found.provenance.get("run") or Path(found.path).resolve().name
        run = RunFolder(Path(found.path).resolve().parent.parent)
    failed: list[str] = []
    with joined_world() as world:
        for target, folder in targets:
            scores = score_model(
                target,
                evaluation,
                folder,
                name=name,
                step=target.provenance.get("step"),
                template=query_template(run),
                report=speaker(),
                world=world,
            )
            if world.is_main:
                _print(Path(target.path).name, scores, folder)
            failed += failures(scores, Path(target.path).name)
    if failed:
        raise tasks_failed(failed)


def evaluation_section(
    config: Path | None,
    folders: list[Path],
    suites: list[str],
    *,
    instructions: Path | None,
    steps: str | None,
    max_tokens: int | None,
) -> Evaluation:
    """Return the evaluation section of a file with the options in it: options win, tasks are added.

    Raises
    ------
    InputError
        If the file has no such section, the steps cannot be read, or there is nothing to score on.
    """
    from reasoning_embedding.config import (
        BeirTask,
        ChoiceTask,
        Evaluation,
        ExperimentConfig,
        SuiteTask,
        load_config,
    )

    section: Evaluation | None = None
    if config is not None:
        section = load_config(config, expect=ExperimentConfig).config.evaluation
        if section is None:
            raise InputError("the file has no section 'evaluation'", where=str(config), todo="add its tasks")
    tasks: list[Any] = [*section.tasks] if section else []
    for folder in folders:
        choice = any((folder / f"candidates.jsonl{ending}").is_file() for ending in ("", ".gz"))
        tasks.append(
            ChoiceTask(kind="choice", path=str(folder)) if choice else BeirTask(kind="beir", path=str(folder))
        )
    tasks += [SuiteTask(kind="mteb", name=name) for name in suites]
    if not tasks:
        raise InputError("nothing to score on", todo="give --task FOLDER, --suite NAME or --config FILE")
    changes: dict[str, Any] = {
        "tasks": tasks,
        "instructions": None if instructions is None else str(instructions),
        "steps": None if steps is None else _steps(steps),
        "max_tokens": max_tokens,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    return section.model_copy(update=changes) if section else Evaluation(**changes)


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
