"""What a grown stage remembers: is it still the one a section describes, and does it pass its gates?"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_embedding.checkpoints import RunFolder, content_hash, hash_file, read_provenance
from reasoning_embedding.config.lineage import (
    ExistingTokenizer,
    GivenStage,
    Lineage,
    PretrainStage,
    SftStage,
    Stage,
    StageBase,
    TextCorpus,
    WorldTokenizer,
)
from reasoning_embedding.config.stage_data import PromptFiles, WorldSums
from reasoning_embedding.errors import InputError

from .corpus import existing_file
from .gates import Format, check_gates, measure
from .steps import wanted_steps

GATES = "gates.json"


def find_stage(lineage: Lineage, name: str) -> Stage:
    """Return a stage by name.

    Raises
    ------
    InputError
        If the lineage has none of that name.
    """
    for stage in lineage.stages:
        if stage.name == name:
            return stage
    names = [stage.name for stage in lineage.stages]
    raise InputError(f"the lineage has no stage {name!r}", todo=f"choose one of {', '.join(names)}")


def settings_hash(lineage: Lineage, name: str) -> str:
    """SHA-256 over what decides a stage's weights: its section and, where it pre-trains, the tokenizer's.

    The bytes of the files it learns from and of given folders count; gates and threads do not: they change
    what is accepted and how fast, not what is grown.

    Raises
    ------
    InputError
        If the lineage has no such stage or a file of its corpus is missing.
    """
    stage = find_stage(lineage, name)
    settings: dict[str, Any] = {
        "stage": stage.model_dump(mode="json", exclude={"gates", "threads"}),
        "files": [hash_file(file) for file in _files(lineage, stage)],
    }
    if isinstance(stage, PretrainStage) and lineage.tokenizer is not None:
        settings["tokenizer"] = lineage.tokenizer.model_dump(mode="json")
    if isinstance(stage, GivenStage) and stage.tokenizer_of is not None:
        settings["tokenizer_of"] = settings_hash(lineage, stage.tokenizer_of)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _files(lineage: Lineage, stage: Stage) -> list[Path]:
    """Local files whose bytes decide what a stage becomes."""
    if isinstance(stage, GivenStage):
        return _folder_files(stage.path)
    if not isinstance(stage, PretrainStage):
        return (
            [existing_file(path) for path in stage.data.paths] if isinstance(stage.data, PromptFiles) else []
        )
    corpus = stage.corpus.paths if isinstance(stage.corpus, TextCorpus) else []
    tokenizer = lineage.tokenizer
    known = _folder_files(tokenizer.path) if isinstance(tokenizer, ExistingTokenizer) else []
    return [existing_file(path) for path in corpus] + known


def _folder_files(path: str) -> list[Path]:
    folder = Path(path).expanduser()
    return sorted(file for file in folder.iterdir() if file.is_file()) if folder.is_dir() else []


def is_current(lineage: Lineage, name: str, folder: Path, parent: Path | None) -> bool:
    """Tell whether `folder` holds this stage, whole, grown with these settings from this very parent."""
    record = read_provenance(folder)
    if record is None or record.get("settings_hash") != settings_hash(lineage, name):
        return False
    if record["content_hash"] != content_hash(folder):
        return False
    stage = find_stage(lineage, name)
    if not set(wanted_steps(stage)) <= set(RunFolder(folder).steps()):
        return False
    if parent is None or isinstance(stage, GivenStage):
        return True
    return parent.is_dir() and record["parent"]["content_hash"] == content_hash(parent)


def check_recorded_gates(stage: Stage, folder: Path) -> None:
    """Hold the values recorded when a stage was grown against its present gates.

    Raises
    ------
    QualityGateError
        When one is missed.
    """
    record = json.loads((folder / GATES).read_text(encoding="utf-8"))
    if record["measured"] is not None:
        check_gates(stage, record["measured"])


def asks_for_sums(lineage: Lineage, stage: StageBase) -> bool:
    """Whether a stage is measured: a model of plain text has no sums to be asked for, unless its gates say so."""
    return isinstance(lineage.tokenizer, WorldTokenizer) or bool(stage.gates.model_dump(exclude_none=True))


def gate_record(
    stage: StageBase, model: PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """Return what ``gates.json`` holds: thresholds, and how well a model adds in its own and the other format.

    Parameters
    ----------
    stage : StageBase
        Its gates; supervised fine-tuning on the world makes worked solutions its own format.
    model : PreTrainedModel or None
        None where it is not to be asked.
    tokenizer : PreTrainedTokenizerBase
        Its tokenizer.
    """
    worked = isinstance(stage, SftStage) and isinstance(stage.data, WorldSums)
    formats: tuple[Format, Format] = ("worked", "direct") if worked else ("direct", "worked")
    own, other = (
        None if model is None else asdict(measure(model, tokenizer, form=form, seed=stage.seed))
        for form in formats
    )
    thresholds = stage.gates.model_dump(exclude_none=True)
    return {"thresholds": thresholds, "measured": own, "other_format": other}


def spoken_gates(gates: dict[str, Any]) -> str:
    """Return the end of a sentence about what was measured; empty where nothing was."""
    measured = gates["measured"]
    if measured is None:
        return ""
    return (
        f"; {measured['format']} sums: sampled {measured['sampled_accuracy']:.2f}, "
        f"greedy {measured['greedy_accuracy']:.2f}, pass@8 {measured['pass_at_8']:.2f}"
    )
