"""Grow a lineage stage by stage; each stage is a Hugging Face checkpoint that names its parent."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from reasoning_embedding.checkpoints.atomic import atomic_folder, atomic_write, write_json
from reasoning_embedding.checkpoints.provenance import (
    content_hash,
    write_provenance,
)
from reasoning_embedding.config.lineage import (
    Lineage,
    LineageConfig,
    PretrainStage,
    RlvrStage,
    SftStage,
    Stage,
    WorldTokenizer,
)
from reasoning_embedding.errors import InputError, SetupError

from .corpus import corpus_texts
from .gates import Format, check_gates, measure, require_learnable
from .pretrain import pretrain, threads
from .progress import no_bars
from .records import GATES, check_recorded_gates, find_stage, is_current, settings_hash
from .tokenizer import build_tokenizer, load_tokenizer

METRICS = "metrics.jsonl"


def grow(config: LineageConfig, report: Callable[[str], None]) -> dict[str, Path]:
    """Grow every stage that is not there yet, in order.

    Parameters
    ----------
    config : LineageConfig
        Tokenizer and stages; folders are ``<output_dir>/<name>/lineage/<stage>``.
    report : callable
        Takes progress lines, each with the stage's name before it.

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
        parent = None if isinstance(stage, PretrainStage) else folders[stage.parent]
        grow_stage(config, stage.name, folders[stage.name], parent, _prefixed(stage.name, report))
    return folders


def _prefixed(name: str, report: Callable[[str], None]) -> Callable[[str], None]:
    return lambda line: report(f"{name}: {line}")


def grow_stage(
    lineage: Lineage, name: str, folder: Path, parent: Path | None, report: Callable[[str], None]
) -> None:
    """Grow one stage into `folder`, whole or not at all; nothing is done where it is already there.

    Parameters
    ----------
    lineage : Lineage
        Holds the stage and the tokenizer.
    name : str
        Which stage.
    folder : Path
        Becomes a checkpoint for ``AutoModelForCausalLM`` and ``AutoTokenizer`` (fp32 safetensors) with
        ``provenance.json``, ``gates.json`` and ``metrics.jsonl``.
    parent : Path or None
        Folder of the parent stage; None for pre-training.
    report : callable
        Takes progress lines.

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
    stage = find_stage(lineage, name)
    if is_current(lineage, name, folder, parent):
        report("already grown")
        check_recorded_gates(stage, folder)
        return
    settings = settings_hash(lineage, name)
    state = folder.parent / f".{name}.state"
    start = time.monotonic()
    with threads(stage.threads), no_bars():
        if isinstance(stage, PretrainStage):
            tokenizer = build_tokenizer(lineage.tokenizer, lambda: corpus_texts(stage.corpus, stage.seed))
            model, log = pretrain(stage, tokenizer, state, settings, report)
        else:
            model, tokenizer, log = _fine_tune(stage, parent, report)
        seconds = time.monotonic() - start
        gates = _measure(lineage, stage, model, tokenizer)
        _write(folder, stage, parent, model, tokenizer, log, gates, settings, seconds)
    shutil.rmtree(state, ignore_errors=True)
    report(f"done in {seconds:.1f} s{_spoken(gates)}")
    if gates["measured"] is not None:
        check_gates(stage, gates["measured"])


def _fine_tune(
    stage: SftStage | RlvrStage, parent: Path | None, report: Callable[[str], None]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[dict[str, Any]]]:
    if parent is None or not (parent / "config.json").exists():
        raise InputError(
            f"its parent {stage.parent!r} is not grown", where=f"stage {stage.name}", todo="grow it"
        )
    tokenizer = load_tokenizer(parent)
    model = AutoModelForCausalLM.from_pretrained(parent, dtype=torch.float32)
    if isinstance(stage, RlvrStage):
        require_learnable(measure(model, tokenizer, seed=stage.seed), stage.name, stage.parent)
    try:
        if isinstance(stage, SftStage):
            from .sft import train_sft

            log = train_sft(stage, model, tokenizer, report)
        else:
            from .rlvr import train_rlvr

            log = train_rlvr(stage, model, tokenizer, parent, report)
    except ModuleNotFoundError as error:
        if error.name != "trl":
            raise
        raise SetupError(
            "trl is not installed",
            where=f"stage {stage.name}",
            todo="pip install 'reasoning-embedding[lineage]'",
        ) from error
    model.config.use_cache = True  # trl switches it off for training
    return model.eval(), tokenizer, log


def _measure(
    lineage: Lineage, stage: Stage, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    thresholds = stage.gates.model_dump(exclude_none=True)
    # A model of plain text has no sums to be asked for, unless its gates say so.
    if not isinstance(lineage.tokenizer, WorldTokenizer) and not thresholds:
        return {"thresholds": thresholds, "measured": None, "other_format": None}
    own, other = ("worked", "direct") if isinstance(stage, SftStage) else ("direct", "worked")
    return {
        "thresholds": thresholds,
        "measured": _measured(model, tokenizer, own, stage.seed),
        "other_format": _measured(model, tokenizer, other, stage.seed),
    }


def _measured(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, form: str, seed: int
) -> dict[str, Any]:
    chosen: Format = "worked" if form == "worked" else "direct"
    return asdict(measure(model, tokenizer, form=chosen, seed=seed))


def _spoken(gates: dict[str, Any]) -> str:
    measured = gates["measured"]
    if measured is None:
        return ""
    return (
        f"; {measured['format']} sums: sampled {measured['sampled_accuracy']:.2f}, "
        f"greedy {measured['greedy_accuracy']:.2f}, pass@8 {measured['pass_at_8']:.2f}"
    )


def _write(
    folder: Path,
    stage: Stage,
    parent: Path | None,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    log: list[dict[str, Any]],
    gates: dict[str, Any],
    settings: str,
    seconds: float,
) -> None:
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_json(temporary / GATES, gates)
        atomic_write(temporary / METRICS, "".join(json.dumps(line) + "\n" for line in log))
        write_provenance(
            temporary,
            kind=stage.kind,
            parent=None
            if parent is None
            else {"path": str(parent), "revision": None, "content_hash": content_hash(parent)},
            stage=stage.model_dump(mode="json"),
            settings_hash=settings,
            gates=gates,
            seconds=round(seconds, 1),
        )
