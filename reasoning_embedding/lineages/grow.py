"""Grow a lineage stage by stage; each stage is a Hugging Face checkpoint that names its parent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from reasoning_embedding.config.lineage import Lineage, LineageConfig
from reasoning_embedding.distributed import World
from reasoning_embedding.errors import InputError

from .gates import check_gates
from .job import StageJob
from .pretrain import threads
from .progress import no_bars
from .records import GATES, check_recorded_gates, find_stage, is_current, settings_hash, spoken_gates

Report = Callable[[str], None]


def grow(config: LineageConfig, report: Report, world: World | None = None) -> dict[str, Path]:
    """Grow every stage that is not there yet, in order.

    Parameters
    ----------
    config : LineageConfig
        Tokenizer and stages; folders are ``<output_dir>/<name>/lineage/<stage>``.
    report : callable
        Takes progress lines, each with the stage's name before it.
    world : World, optional
        Ranks that train together; all of them call.

    Returns
    -------
    dict
        Folder of each stage.

    Raises
    ------
    QualityGateError
        When a stage, grown now or earlier, misses a gate.
    """
    root = Path(config.output_dir) / config.name / "lineage"
    folders = {stage.name: root / stage.name for stage in config.stages}
    for stage in config.stages:
        needed = None if stage.needs is None else folders[stage.needs]
        grow_stage(config, stage.name, folders[stage.name], needed, _prefixed(stage.name, report), world)
    return folders


def _prefixed(name: str, report: Report) -> Report:
    return lambda line: report(f"{name}: {line}")


def grow_stage(
    lineage: Lineage,
    name: str,
    folder: Path,
    parent: Path | None,
    report: Report,
    world: World | None = None,
) -> None:
    """Grow one stage into `folder`, whole or not at all; nothing is done where it is already there.

    Parameters
    ----------
    lineage : Lineage
        Holds the stage and the tokenizer.
    name : str
        Which stage.
    folder : Path
        Becomes a checkpoint for ``AutoModelForCausalLM`` and ``AutoTokenizer`` (safetensors) with
        ``provenance.json``, ``gates.json`` and ``metrics.jsonl``; steps that are kept lie in ``checkpoints/``.
    parent : Path or None
        Folder of the stage it needs: its parent, or the one whose tokenizer it takes.
    report : callable
        Takes progress lines.
    world : World, optional
        Ranks that train together; all of them call, the main one writes.

    Raises
    ------
    QualityGateError
        When a gate is missed (the folder is kept, so that one can look at it and the next call need
        not grow it again), or when RLVR is to start from a parent that solves too little.
    SetupError
        When a stage needs trl and it is not installed.
    InputError
        When the stage cannot be what the section says.
    """
    stage, world = find_stage(lineage, name), world or World()
    current = is_current(lineage, name, folder, parent)
    world.barrier()  # every rank has looked before the main one writes
    if current:
        report("already grown")
        check_recorded_gates(stage, folder)
        return
    if parent is not None and not (parent / "config.json").exists():
        raise InputError(
            f"its parent {stage.needs!r} is not grown", where=f"stage {stage.name}", todo="grow it"
        )
    job = StageJob(lineage, stage, folder, parent, settings_hash(lineage, name), report, world)
    with threads(stage.threads), no_bars():
        seconds = job.do()
    world.barrier()
    gates = json.loads((folder / GATES).read_text(encoding="utf-8"))
    report(f"done in {seconds:.1f} s{spoken_gates(gates)}")
    if gates["measured"] is not None:
        check_gates(stage, gates["measured"])
