"""Whether a grown stage is still the one that its section describes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints import RunFolder, content_hash, read_provenance
from reasoning_embedding.config.lineage import (
    ExistingTokenizer,
    GivenStage,
    Lineage,
    PretrainStage,
    PromptFiles,
    RlvrStage,
    Stage,
    TextCorpus,
)
from reasoning_embedding.config.resolved import without_new_keys
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import hash_file

from .corpus import existing_file
from .step_checkpoints import wanted_steps


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
    own = {"stage": stage.model_dump(mode="json", exclude={"gates", "threads"})}
    settings: dict[str, Any] = {
        **without_new_keys(own),  # what versions before grew is known again
        "files": [hash_file(file) for file in _files(lineage, stage)],
    }
    if isinstance(stage, RlvrStage) and ":" in stage.reward:
        # Wherever its file lies: its name and its text count.
        file, _, function = stage.reward.rpartition(":")
        if file.endswith(".py"):
            settings["stage"]["reward"] = f"{Path(file).stem}:{function}"
            settings["reward_sha256"] = hash_file(Path(file))
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


def twin_folder(stage: Stage, folder: Path) -> Path | None:
    """Folder of the stage whose placebo `stage`, grown into `folder`, is: beside it. None where it is no placebo."""
    placebo_of = getattr(stage, "placebo_of", None)
    return None if placebo_of is None else folder.parent / placebo_of


def is_current(lineage: Lineage, name: str, folder: Path, parent: Path | None) -> bool:
    """Tell whether `folder` holds all of this stage, grown with these settings from this very parent."""
    record = read_provenance(folder)
    if record is None or record.get("settings_hash") != settings_hash(lineage, name):
        return False
    if record.get("content_hash") != content_hash(folder):
        return False
    stage = find_stage(lineage, name)
    if not set(wanted_steps(stage)) <= set(RunFolder(folder).steps()):
        return False
    if parent is None or isinstance(stage, GivenStage):
        return True
    if (twin := twin_folder(stage, folder)) is not None and record.get("twin") != content_hash(twin):
        return False
    return parent.is_dir() and record["parent"]["content_hash"] == content_hash(parent)
