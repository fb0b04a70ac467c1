"""A run folder when it is opened: which step to go on from, and what it says of the run."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder, read_provenance, versions
from reasoning_embedding.checkpoints.retention import newest_resumable
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_write, read_json, write_json
from reasoning_embedding.secrets import sealed, unsealed

if TYPE_CHECKING:
    from .memory_mode import MemoryMode
    from .setup import PreparedRun


def first_step(run: RunFolder, settings: config.RunConfig, *, resume: bool) -> int:
    """Return the step to go on from (0 for a new run), after checking that the folder fits the config.

    Raises
    ------
    InputError
        If the folder holds a run and `resume` is false, or the run there had other settings.
    """
    if not run.steps():
        return 0
    if not resume:
        raise InputError(
            f"this run folder already holds steps {run.steps()[0]} to {run.steps()[-1]}",
            where=str(run.path),
            todo="go on with --resume, or choose another name",
        )
    saved = unsealed(read_json(run.config_json, default={}), config.resolved_json(settings), run.path)
    if saved and (changed := config.changed_since(saved, settings)):
        raise InputError(
            f"the run there had other settings ({', '.join(changed)})",
            where=str(run.config_json),
            todo="resume with the same config, or choose another name (rembed config diff shows the difference)",
        )
    return newest_resumable(run) or 0


def describe_run(prepared: PreparedRun, text: str | None, memory: MemoryMode) -> None:
    """Write the config as written and as resolved, and the manifest.

    Parameters
    ----------
    prepared : PreparedRun
        What is about to be trained.
    text : str, optional
        The config as written.
    memory : MemoryMode
        What its steps keep.
    """
    run, settings, world = prepared.run, prepared.settings, prepared.world
    if text is not None:
        atomic_write(run.config_yaml, text)
    write_json(run.config_json, sealed(config.resolved_json(settings), run.path))
    gpu = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else None
    manifest = {
        "name": settings.name,
        "seed": settings.seed,
        "steps": prepared.plan.steps,
        "rows": len(prepared.table),
        "sources": prepared.table.sources,
        "skipped_rows": prepared.table.skipped,
        "data_fingerprint": prepared.table.fingerprint,
        "input_contract": asdict(prepared.inputs),
        "readout": prepared.readout,
        "ranks": world.size,
        "memory": asdict(memory),
        "compute_dtype": str(prepared.compute or torch.float32).removeprefix("torch."),
        "hardware": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "gpu": gpu,
        },
        "versions": versions(),
        "git_commit": _git_commit(),
    }
    write_json(run.manifest, manifest)


def _git_commit() -> str | None:
    """Commit of the code that runs, or None outside a checkout."""
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None


def parent_record(backbone: config.Backbone) -> dict[str, Any]:
    """Say what a run starts from, for the provenance of its checkpoints."""
    if isinstance(backbone, config.RandomBackbone):
        return {"architecture": backbone.architecture.model_dump(mode="json"), "seed": backbone.seed}
    record = read_provenance(Path(backbone.path)) if Path(backbone.path).is_dir() else None
    return {
        "path": backbone.path,
        "revision": backbone.revision,
        "content_hash": record["content_hash"] if record else None,
    }
