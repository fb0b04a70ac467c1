"""``rembed track``: how representations move along runs or series of models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import require_output_file

from ._app import DeviceName
from ._probe_options import (
    Count,
    LabelField,
    MaxTokens,
    Rule,
    SkipFirst,
    TextField,
    Texts,
    Traces,
    chosen_probe,
    row_settings,
)

if TYPE_CHECKING:
    from reasoning_embedding.experiments.comparisons import Series


def command(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Run folders, also running ones; or models of one series: folders, RUN@STEP, or OWNER/NAME@REVISION.",
            metavar="RUN",
        ),
    ],
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="first (its own first step), a run (step by step), run:NAME@STEP or a model; may be repeated."
        ),
    ] = None,
    steps: Annotated[
        str | None, typer.Option(help="saved (default), every:N, or a list such as 0,200.")
    ] = None,
    probe: Texts = None,
    text: TextField = "text",
    label: LabelField = None,
    traces: Traces = False,
    tokens: Rule = None,
    texts: Count = 500,
    max_tokens: MaxTokens = None,
    skip_first: SkipFirst = None,
    all_intervals: Annotated[
        bool,
        typer.Option(
            "--all-intervals", help="Intervals of every metric, not only of those that cost little."
        ),
    ] = False,
    weights: Annotated[
        bool,
        typer.Option(
            "--weights",
            help="Follow the weights instead of what they make of texts; write hrsa/weights.json.",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The parquet file (of weights: JSON), of a single series."),
    ] = None,
    device: DeviceName = "auto",
) -> None:
    """Measure the checkpoints of runs against step 0, a sibling or a model; write hrsa/track.parquet.

    With --weights: how far training moved each matrix, and where to, beside a random change of its size.

    Steps measured before are kept; a checkpoint that has changed is measured again. A run whose configuration
    has an hrsa section is measured as that says; options win.

    Raises
    ------
    InputError
        If a run, model, reference or probe cannot be used.
    """
    from reasoning_embedding.config import Tracking

    from ._terminal import next_command, silence_libraries, speaker

    if output is not None:
        require_output_file(output)
    changes = row_settings(tokens, max_tokens, skip_first)
    changes |= {"against": against} if against else {}
    changes |= {"steps": _steps(steps)} if steps else {}
    changes |= {"intervals": "all"} if all_intervals else {}
    if probe is not None:
        changes["probe"] = chosen_probe(probe, text, label, texts=texts, traces=traces)
    silence_libraries()
    from reasoning_embedding.distributed import joined_world
    from reasoning_embedding.experiments.comparisons import series_of, track_series

    series = series_of(runs)
    if output is not None and len(series) > 1:
        raise InputError(f"one file for {len(series)} series", where="--output", todo="track them one by one")
    if weights:
        _follow_weights(series, against, output, device)
        return
    with joined_world(device=device) as world:
        say = speaker() if world.is_main else lambda line: None
        for one in series:
            settings = Tracking.model_validate({"probe": {"kind": "world"}, **_own(one), **changes})
            path = track_series(one, settings, say, output=output, world=world)
            if world.is_main:
                typer.echo(f"track: {path}")
    next_command("track")


def _follow_weights(
    series: list[Series], against: list[str] | None, output: Path | None, device: DeviceName
) -> None:
    from reasoning_embedding.distributed.world import chosen_device
    from reasoning_embedding.experiments.comparisons import track_weights
    from reasoning_embedding.files import read_json
    from reasoning_embedding.reports.weights_text import weight_step_lines

    from ._terminal import speaker

    if against is not None and len(against) > 1:
        raise InputError(
            "weights are followed from one start", where="--against", todo="name one model, or leave it out"
        )
    start = against[0] if against else None
    for one in series:
        path = track_weights(one, start, speaker(), output=output, device=chosen_device(device))
        for line in weight_step_lines(read_json(path)):
            typer.echo(line)
        typer.echo(f"weights: {path}")


def _own(series: Series) -> dict[str, Any]:
    """Return the ``hrsa`` section of a run's configuration; empty where it has none."""
    from reasoning_embedding.checkpoints.run_records import read_settings

    return (read_settings(series.run).get("hrsa") if series.run else None) or {}


def _steps(text: str) -> Any:
    kind, _, number = text.partition(":")
    try:
        if text == "saved":
            return text
        return {"every": int(number)} if kind == "every" else [int(step) for step in text.split(",")]
    except ValueError as error:
        raise InputError(
            f"cannot read {text!r} as steps", where="--steps", todo="saved, every:200, or 0,200,400"
        ) from error
