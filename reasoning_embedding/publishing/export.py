"""Write what will be uploaded: a folder a revision, with model, card, provenance and index."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints import read_provenance, step_name
from reasoning_embedding.checkpoints.provenance import FILE as PROVENANCE
from reasoning_embedding.checkpoints.provenance import MODEL_FILES
from reasoning_embedding.checkpoints.scores import scores_of_checkpoint
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_folder, explain_disk_errors, require_space, write_json
from reasoning_embedding.progress import Report

from .card import write_card
from .facts import About, Facts, mean_score, read_run
from .masking import public
from .release import MAIN, Release, Revision, files_in

INDEX = "checkpoints.jsonl"
_PNG = b"\x89PNG\r\n\x1a\n"


def export(release: Release, about: About, report: Report) -> None:
    """Write every revision's folder; each appears whole or not at all, and a call repeats to the same bytes.

    Parameters
    ----------
    release : Release
        What is published.
    about : About
        What only the person who publishes knows.
    report : callable
        Takes a line a revision.

    Raises
    ------
    InputError
        If a checkpoint has no provenance, or a record of the run is damaged.
    SetupError
        If the disk is full or the folder cannot be written.
    """
    run = read_run(release.run)
    scored: dict[str, dict[str, Any] | None] = {}
    if release.run is not None:
        scored = {item.name: scores_of_checkpoint(release.run, item.checkpoint) for item in release.revisions}
        start = release.run.checkpoint(0)
        if start.is_dir():
            scored.setdefault(step_name(0), scores_of_checkpoint(release.run, start))
    for revision in release.revisions:
        record = read_provenance(revision.checkpoint)
        if record is None:
            raise InputError(
                f"no {PROVENANCE}: what this model was made from is not recorded",
                where=str(revision.checkpoint),
                todo="publish a checkpoint that this package wrote",
            )
        facts = Facts(release, revision, record, run, scored, about)
        target = release.exported(revision)
        needed = sum(path.stat().st_size for path in _model_files(revision.checkpoint))
        require_space(target, needed, f"the export of {revision.name}")
        with atomic_folder(target) as folder:
            _place(revision.checkpoint, folder)
            write_json(folder / PROVENANCE, public(record), summed=True)
            write_card(facts, folder)
            if revision.name == MAIN:
                _place_figures(facts, folder)
                if release.steps:
                    lines = [json.dumps(_entry(item, facts), ensure_ascii=False) for item in release.steps]
                    (folder / INDEX).write_text("\n".join(lines) + "\n", encoding="utf-8")
        files = files_in(target)
        size = sum(path.stat().st_size for path in files.values())
        report(f"{revision.name}: {len(files)} files, {size / 1e6:.1f} MB, from {revision.checkpoint.name}")


def _model_files(checkpoint: Path) -> list[Path]:
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    return [path for path in files if path.suffix in MODEL_FILES and path.name != PROVENANCE]


def _place(checkpoint: Path, folder: Path) -> None:
    """Copy the checkpoint's model into the folder; weights in any other format are never published.

    No links: what somebody edits in the export must not change the run.
    """
    for path in _model_files(checkpoint):
        target = folder / path.relative_to(checkpoint)
        with explain_disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _place_figures(facts: Facts, folder: Path) -> None:
    for path in facts.run.figures.values():
        content = path.read_bytes()
        if not content.startswith(_PNG):
            raise InputError("this figure is no PNG", where=str(path), todo="make the report again")
        (folder / "figures").mkdir(exist_ok=True)
        (folder / "figures" / path.name).write_bytes(content)


def _entry(revision: Revision, facts: Facts) -> dict[str, Any]:
    scores = facts.scores.get(revision.name)
    record = read_provenance(revision.checkpoint) or {}
    return {
        "repo": facts.release.repo,
        "revision": revision.name,
        "step": revision.step,
        "main": revision.step == facts.revision.step,
        "content_hash": record.get("content_hash"),
        "mean_score": mean_score(scores),
        "scores": {entry["task"]: entry.get("main_score") for entry in scores["tasks"]} if scores else {},
    }
