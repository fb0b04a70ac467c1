"""``rembed plan``: what a run will cost on a number of GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from reasoning_embedding.errors import InputError

from ._app import Overrides
from ._terminal import next_command

#: Which GPUs are meant where only their number is said.
_GPU = "H200"


def command(
    config: Annotated[Path, typer.Argument(help="A YAML file of kind run.", metavar="CONFIG")],
    overrides: Overrides = None,
    gpus: Annotated[
        int | None,
        typer.Option(min=1, max=65536, help="GPUs, eight a node; absent: as many as LAUNCHER starts, or 1."),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(help="Which GPU, such as H100, H200, A100 or MI300X. Absent: H200."),
    ] = None,
    here: Annotated[
        bool,
        typer.Option(
            "--here",
            help="This machine: its GPUs, or its processor, whose rate is measured. So without --gpus, --gpu or "
            "--launcher.",
        ),
    ] = False,
    launcher: Annotated[
        Path | None,
        typer.Option(
            help="The file that accelerate launch --config_file will take: its engine and offloading."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
) -> None:
    """Say what a run will cost: memory by part, communication, time a step, hours, and the memory mode.

    On this machine, or with --gpus, --gpu or --launcher on others: an estimate on paper from published peaks; no GPU,
    no download and no weights are needed. Of a machine without a GPU: from its processor's rate of products, which takes
    a second to measure, and its free memory.

    Raises
    ------
    InputError
        If the backbone's sizes are not known, there is no such GPU, the batch is smaller than the GPUs, or the
        launcher's file cannot be used for the run.
    """
    from reasoning_embedding.config import EngineSettings, RunConfig, check_engine, load_config

    from ._terminal import silence_libraries

    settings = load_config(config, overrides or (), expect=RunConfig).config
    silence_libraries()
    from reasoning_embedding.planning.plan import cost
    from reasoning_embedding.planning.shapes import backbone_shape, with_readout
    from reasoning_embedding.planning.texts import run_texts

    engine = None
    if launcher is not None:
        engine, processes = EngineSettings.from_launcher_file(launcher)
        gpus = gpus or processes
        check_engine(engine, settings.training, ranks=gpus or 1)
    shape = with_readout(backbone_shape(settings.backbone), settings.backbone, settings.readout)
    texts = run_texts(settings)
    named = launcher is not None or gpus is not None or gpu is not None
    if here and named:
        raise InputError("--here plans for this machine", todo="drop --gpus, --gpu and --launcher, or --here")
    if not named:
        from reasoning_embedding.distributed import chosen_device

        if chosen_device(settings.training.device).type == "cpu":
            from reasoning_embedding.planning.processor import processor_cost

            on_processor = processor_cost(settings, shape, texts)
            if json:
                from json import dumps

                typer.echo(dumps(on_processor))
            else:
                _print_processor(on_processor)
            next_command("plan", config=config)
            return
        import torch

        gpus, gpu = torch.cuda.device_count(), torch.cuda.get_device_name()
    found = cost(settings, shape, texts, gpus=gpus or 1, gpu=gpu or _GPU, engine=engine)
    if json:
        from json import dumps

        typer.echo(dumps(found))
        return
    _print(found)
    next_command("plan", config=config)


def _print_processor(found: dict[str, Any]) -> None:
    texts = found["texts"]
    typer.echo(
        f"{found['parameters'] / 1e9:.3g} B parameters, {found['trained_parameters'] / 1e9:.3g} B trained, on this "
        f"processor with {found['threads']} threads"
    )
    typer.echo(f"texts: {texts['mean']:.0f} tokens each ({texts['source']}), {texts['each']:g} a query")
    typer.echo(
        f"rate: {found['rate'] / 1e9:,.0f} GFLOP/s of {found['dtype']} products, measured just now; a step is taken to "
        f"reach {found['share']:.0%} of it, an assumption"
    )
    need, free = sum(found["memory_bytes"].values()), found["memory_available"]
    fits = (
        "" if found["fits"] else "; it does not fit: lower training.pack_tokens and batch_size, or use lora"
    )
    typer.echo(
        f"memory: {need / 1e9:.1f} GB of {free / 1e9:.1f} free ({_parts(found['memory_bytes'], 1e9)}){fits}"
    )
    steps = "unknown without data or training.steps" if found["steps"] is None else f"{found['steps']:,}"
    hours = "" if found["hours"] is None else f", {found['hours']:.2g} hours in all"
    typer.echo(
        f"{found['tokens_per_step']:,.0f} tokens a step, memory mode {found['mode']}: {found['step_seconds']:.2g} s a "
        f"step, {found['tokens_per_second']:,.0f} tokens/s; steps: {steps}{hours}"
    )


def _print(found: dict[str, Any]) -> None:
    texts = found["texts"]
    typer.echo(
        f"{found['parameters'] / 1e9:.3g} B parameters, {found['trained_parameters'] / 1e9:.3g} B trained, on "
        f"{found['gpus']} x {found['gpu']}"
    )
    typer.echo(f"texts: {texts['mean']:.0f} tokens each ({texts['source']}), {texts['each']:g} a query")
    steps = "unknown without data or training.steps" if found["steps"] is None else f"{found['steps']:,}"
    typer.echo(f"{found['tokens_per_step']:,.0f} tokens a step; steps: {steps}")
    typer.echo(f"{found['activation_bytes_per_token'] / 1e6:.3g} MB of activations a stored token\n")
    typer.echo(f"{'engine':<11}{'GB/GPU':>8}  {'mode':<8}{'sends MB':>10}{'s/step':>9}{'MFU':>6}{'hours':>8}")
    for name, one in found["engines"].items():
        hours = "-" if one["hours"] is None else f"{one['hours']:.1f}"
        sent = sum(one["communication_bytes"].values()) / 1e6
        fits = "" if one["fits"] else "  does not fit"
        typer.echo(
            f"{name:<11}{one['memory_total'] / 1e9:>8.1f}  {one['mode']:<8}{sent:>10,.0f}"
            f"{one['step_seconds']:>9.3g}{one['mfu']:>6.0%}{hours:>8}{fits}"
        )
    best = found["engine"] or next(iter(found["engines"]))
    one = found["engines"][best]
    typer.echo(f"\n{best}, GB a GPU: " + _parts(one["memory_bytes"], 1e9))
    typer.echo(f"{best}, ms a step: " + _parts(one["compute_seconds"], 1e-3))
    if on_host := sum(one["host_memory_bytes"].values()):
        from reasoning_embedding.planning.time import NODE

        ranks = min(found["gpus"], NODE)
        parts = {name: size * ranks for name, size in one["host_memory_bytes"].items()}
        typer.echo(f"{best}, GB of host memory a node: {on_host * ranks / 1e9:.3g} ({_parts(parts, 1e9)})")
        typer.echo(f"{best}, ms a step between GPU and host: " + _parts(one["host_seconds"], 1e-3))
    if found["engine"] is None:
        typer.echo("nothing fits: lower training.pack_tokens, recompute activations, or use more GPUs")


def _parts(parts: dict[str, float], unit: float) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value / unit:.3g}" for name, value in parts.items() if value)
