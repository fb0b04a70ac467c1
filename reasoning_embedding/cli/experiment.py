"""``rembed experiment``: grow, train, evaluate, analyse and report from one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._app import Overrides
from ._terminal import next_command

if TYPE_CHECKING:
    from reasoning_embedding.config import ExperimentConfig


def command(
    config: Annotated[Path, typer.Argument(help="A YAML file of kind experiment.", metavar="CONFIG")],
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print commands, memory and hours on GPUs; start nothing.")
    ] = False,
    gpus: Annotated[int, typer.Option(min=1, max=8, help="GPUs a run, for --dry-run.")] = 8,
    gpu: Annotated[str, typer.Option(help="Which GPU, for --dry-run.")] = "H100",
) -> None:
    """Run every stage of an experiment that is not done yet, then make its page.

    Raises
    ------
    ReasoningEmbeddingError
        When the config cannot be used or a stage fails; finished stages are kept.
    """
    from reasoning_embedding.config import ExperimentConfig, load_config

    from ._terminal import silence_libraries, speaker

    loaded = load_config(config, overrides or (), expect=ExperimentConfig)
    if dry_run:
        silence_libraries()
        _print_plan(loaded.config, config, gpus, gpu)
        return
    say = speaker()
    from reasoning_embedding.experiments import run_experiment

    folder = run_experiment(loaded.config, text=loaded.text, report=say)
    from reasoning_embedding.reports import build, summary_table

    page = build(folder, say)
    typer.echo(summary_table(folder))
    typer.echo(f"report: {page.resolve()}")
    next_command("experiment", folder=folder)


def _print_plan(experiment: ExperimentConfig, path: Path, gpus: int, gpu: str) -> None:
    from reasoning_embedding.experiments.dry_run import chosen_engine, launch_commands, planned_runs

    costs = planned_runs(experiment, gpus=gpus, gpu=gpu)
    typer.echo(f"{experiment.name} on {gpus} x {gpu} (an estimate on paper, see rembed plan)\n")
    width = max(map(len, costs))
    typer.echo(
        f"{'run':<{width}}  {'params':>7}{'steps':>7}  {'engine':<11}{'GB/GPU':>7}  {'mode':<8}{'hours':>6}"
    )
    total, unknown = 0.0, False
    for name, found in costs.items():
        engine = chosen_engine(found)
        one = found["engines"][engine]
        total, unknown = total + (one["hours"] or 0.0), unknown or one["hours"] is None
        hours = "-" if one["hours"] is None else f"{one['hours']:.1f}"
        steps = "-" if found["steps"] is None else found["steps"]
        fits = "" if one["fits"] else "  does not fit"
        typer.echo(
            f"{name:<{width}}  {found['parameters'] / 1e9:>6.2f}B{steps:>7}  {engine:<11}"
            f"{one['memory_total'] / 1e9:>7.1f}  {one['mode']:<8}{hours:>6}{fits}"
        )
    said = (
        "unknown without data, training.steps or expected_rows"
        if unknown
        else f"{total:.1f} hours, one after another"
    )
    typer.echo(f"training: {said}; evaluation and analysis come on top\n")
    parts = ", ".join(
        f"{name.replace('_', ' ')} {value / 1e9:.3g}" for name, value in one["memory_bytes"].items() if value
    )
    typer.echo(f"{engine}, GB a GPU: {parts}\n")
    for line in launch_commands(experiment, path, costs, gpus=gpus):
        typer.echo(line)
