"""What a grown stage remembers: is it still the one a section describes, and does it pass its gates?"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from reasoning_embedding.checkpoints.provenance import content_hash, hash_file, read_provenance
from reasoning_embedding.config.lineage import ExistingTokenizer, Lineage, PretrainStage, Stage, TextCorpus
from reasoning_embedding.errors import InputError

from .corpus import existing_file
from .gates import check_gates

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
    """SHA-256 over what decides a stage's weights: its section and the tokenizer's.

    The bytes of a text corpus and of a tokenizer's folder count, gates and threads do not: they change
    what is accepted and how fast, not what is grown.

    Raises
    ------
    InputError
        If the lineage has no such stage or a file of its corpus is missing.
    """
    stage = find_stage(lineage, name)
    files: list[Path] = []
    if isinstance(stage, PretrainStage):
        if isinstance(stage.corpus, TextCorpus):
            files += [existing_file(path) for path in stage.corpus.paths]
        if isinstance(lineage.tokenizer, ExistingTokenizer) and Path(lineage.tokenizer.path).is_dir():
            files += sorted(file for file in Path(lineage.tokenizer.path).iterdir() if file.is_file())
    settings = {
        "stage": stage.model_dump(mode="json", exclude={"gates", "threads"}),
        "tokenizer": lineage.tokenizer.model_dump(mode="json"),
        "files": [hash_file(file) for file in files],
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def is_current(lineage: Lineage, name: str, folder: Path, parent: Path | None) -> bool:
    """Tell whether `folder` holds this stage, whole, grown with these settings from this very parent."""
    record = read_provenance(folder)
    if record is None or record.get("settings_hash") != settings_hash(lineage, name):
        return False
    if record["content_hash"] != content_hash(folder):
        return False
    if parent is None:
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
