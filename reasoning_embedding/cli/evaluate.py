"""``rembed evaluate``: scores of a checkpoint, or of a run's checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reasoning_embedding.errors import InputError, ReasoningEmbeddingError


def command(
    path: Annotated[Path, typer.Argument(help="A checkpoint or a run folder.", metavar="CHECKPOINT|RUN")],
    task: Annotated[
        list[Path], typer.Option("--task", "-t", help="A BEIR-style folder; may be given again.")
    ],
    steps: Annotated[str, typer.Option(help="Of a run: ends, all, or steps such as 0,200.")] = "ends",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Absent: the run's own evaluation folder.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longer texts are cut.")] = 512,
) -> None:
    """Score checkpoints on local retrieval tasks; what is scored already is not scored again.

    Raises
    ------
    InputError
        If a task or checkpoint cannot be read.
    ReasoningEmbeddingError
        If a task failed; the others are scored.
    """
    from reasoning_embedding.config import BeirTask, Evaluation

    from ._say import quiet_libraries, speaker

    quiet_libraries()
    evaluation = Evaluation(
        tasks=[BeirTask(kind="beir", path=str(folder)) for folder in task], max_tokens=max_tokens
    )
    from reasoning_embedding.checkpoints import RunFolder, content_hash, read_provenance, step_name
    from reasoning_embedding.checkpoints.embedder import load_embedder
    from reasoning_embedding.evaluation.run import evaluate
    from reasoning_embedding.evaluation.scores import revision_of
    from reasoning_embedding.sweeps import chosen_steps

    run = RunFolder(path)
    if run.checkpoints.is_dir():
        targets = {
            run.checkpoint(step): (output or run.evaluation) / step_name(step)
            for step in chosen_steps(run, _steps(steps))
        }
        name = path.resolve().name
    else:
        targets = {path: output or path.parent.parent / "evaluation" / path.name}
        name = (read_provenance(path) or {}).get("run") or path.resolve().name
    failed: list[str] = []
    for checkpoint, folder in targets.items():
        step = (read_provenance(checkpoint) or {}).get("step")
        scores = evaluate(
            load_embedder(checkpoint),
            evaluation.tasks,
            folder,
            model_name=name,
            revision=revision_of(step, content_hash(checkpoint)),
            step=step,
            settings=evaluation,
            report=speaker(),
        )
        for entry in scores["tasks"]:
            typer.echo(f"{checkpoint.name}  {entry['task']}  nDCG@10 {entry['main_score']:.4f}")
        typer.echo(f"scores: {folder / 'scores.json'}")
        failed += [f"{checkpoint.name} {entry['task']}: {entry['error']}" for entry in scores["failed"]]
    if failed:
        raise ReasoningEmbeddingError(
            "\n".join(["tasks failed", *failed]), todo="mend them and evaluate again"
        )


def _steps(text: str) -> str | list[int]:
    if text in ("ends", "all"):
        return text
    try:
        return [int(step) for step in text.split(",")]
    except ValueError as error:
        raise InputError(
            f"cannot read {text!r} as steps", where="--steps", todo="ends, all, or 0,200"
        ) from error
