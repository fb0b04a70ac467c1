"""``rembed sweep``: the runs of a sweep, here, on a cluster, or as lines to launch by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reasoning_embedding.errors import InputError

from ._app import Overrides
from ._terminal import columns, next_command

if TYPE_CHECKING:
    from reasoning_embedding.sweeps.ledger import Outcome


def command(
    config: Annotated[Path, typer.Argument(help="A YAML file of kind sweep.", metavar="CONFIG")],
    overrides: Overrides = None,
    listed: Annotated[
        bool, typer.Option("--list", help="Only list the runs: what varies, how far they are.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="With --list: exit code 1 while a run is not finished.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the line that launches each unfinished run.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs side by side; absent: the file's own.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only every N-th run, from the I-th: one of N machines.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Start failed runs again.")] = False,
) -> None:
    """Train the runs of a sweep that are not finished, then make its page (with --shard: `rembed report` does).

    Runs are named by the content of their configuration: a finished one is never trained twice, an
    interrupted one is resumed. Any process may be killed at any moment; the same command goes on.

    Raises
    ------
    ReasoningEmbeddingError
        When the config cannot be used, another process runs the sweep, or runs failed.
    """
    from ._terminal import silence_libraries, speaker

    if listed and dry_run:
        raise InputError("--list and --dry-run are two answers", todo="give one")
    if strict and not listed:
        raise InputError("--strict belongs to --list", todo="add --list, or leave it out")
    silence_libraries()
    from reasoning_embedding import api
    from reasoning_embedding.sweeps.sweep import SweepError

    if listed:
        outcomes = api.sweep(config, overrides=overrides or (), shard=shard, start=False).outcomes
        typer.echo(_table(outcomes))
        if strict and any(outcome.state != "finished" for outcome in outcomes):
            raise typer.Exit(1)
    elif dry_run:
        _print_lines(config, overrides, shard, retry=retry)
    else:
        say, failure = speaker(), None
        try:
            found = api.sweep(
                config, overrides=overrides or (), jobs=jobs, shard=shard, retry=retry, report=say
            )
        except SweepError as error:
            if error.result is None:
                raise
            found, failure = error.result, error  # the page shows what the others measured
        typer.echo(_table(found.outcomes))
        if left := sum(outcome.state == "submitted" for outcome in found.outcomes):
            typer.echo(
                f"{left} of {len(found.outcomes)} runs are with the queue: "
                f"rembed sweep {config} --list --strict asks again"
            )
        if found.page is not None:
            typer.echo(f"report: {found.page.resolve()}")
        else:
            typer.echo(f"when all parts are done: rembed report {found.folder}")
        if failure is not None:
            raise failure
        next_command("sweep", folder=found.folder)


def _print_lines(config: Path, overrides: Sequence[str] | None, shard: str | None, *, retry: bool) -> None:
    """Print the line that launches each unfinished run; their configurations are written."""
    from reasoning_embedding.checkpoints import SweepFolder
    from reasoning_embedding.config import SweepConfig, load_config, sweep_runs
    from reasoning_embedding.sweeps.ledger import SweepLedger
    from reasoning_embedding.sweeps.sweep import ALL_RUNS, hold_sweep, launch_line, parse_shard, runs_to_start

    loaded = load_config(config, overrides or (), expect=SweepConfig)
    sweep, runs = loaded.config, sweep_runs(loaded)
    part = parse_shard(shard) if shard is not None else ALL_RUNS
    ledger = SweepLedger(SweepFolder.of(sweep).path)
    with hold_sweep(ledger.folder, part):
        ledger.write(sweep, runs, loaded.text)
        todo = runs_to_start(
            ledger, part.of(runs), retry=retry, report=lambda line: typer.echo(line, err=True)
        )
    for run in todo:
        typer.echo(launch_line(sweep.launch, ledger.folder.config_file(run.name)))


def _table(outcomes: Sequence[Outcome]) -> str:
    """Runs by what varies, state and value; what a failed or submitted run says stands below."""
    keys = list(dict.fromkeys(key for outcome in outcomes for key in outcome.run.point))
    rows = [("run", *keys, "step", "value", "state")]
    for outcome in outcomes:
        point = [
            json.dumps(outcome.run.point[key], ensure_ascii=False) if key in outcome.run.point else "-"
            for key in keys
        ]
        value = "-" if outcome.value is None else f"{outcome.value:.4f}"
        step = "-" if outcome.step is None else str(outcome.step)
        rows.append((outcome.run.name, *point, step, value, outcome.state))
    counts = {
        state: sum(o.state == state for o in outcomes) for state in dict.fromkeys(o.state for o in outcomes)
    }
    lines = [columns(rows, left=(0, len(rows[0]) - 1))]
    lines += [f"{outcome.run.name}: {outcome.note}" for outcome in outcomes if outcome.note]
    lines.append(", ".join(f"{count} {state}" for state, count in counts.items()))
    return "\n".join(lines)
