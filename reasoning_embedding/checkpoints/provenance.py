"""Every artifact names its parent: what it was made from, by what, and its content hash."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from reasoning_embedding.config.references import is_hub_id
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import hash_file, read_json, write_json

FILE = "provenance.json"
#: Endings of files whose bytes decide what a model computes.
MODEL_FILES = (".safetensors", ".json", ".model", ".txt", ".jinja")
#: Folders within a model's that hold other models, or what was measured of it.
_BESIDE = {"checkpoints", "hrsa"}
_NOT_CONTENT = {FILE, "trainer_state.json", "gates.json"}


def content_hash(folder: Path) -> str:
    """SHA-256 over the names and bytes of a model folder's weights, configs and tokenizer.

    Equal folders have equal hashes wherever they lie; provenance, training state, the models of other steps
    (``checkpoints/``) and what was measured (``hrsa/``) do not count.

    Raises
    ------
    InputError
        If the folder holds no model files.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix in MODEL_FILES
        and path.name not in _NOT_CONTENT
        and path.relative_to(folder).parts[0] not in _BESIDE
        and not path.relative_to(folder).parts[0].startswith(".")  # what a download keeps beside the files
    )
    if not files:
        raise InputError("no model files here", where=str(folder), todo="name a checkpoint folder")
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()}\0{hash_file(path)}\n".encode())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide numbers."""
    found = {"python": platform.python_version()}
    names = (
        "reasoning-embedding",
        "torch",
        "transformers",
        "sentence-transformers",
        "accelerate",
        "peft",
        "trl",
        "mergekit",
        "mteb",
    )
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_provenance(folder: Path, *, kind: str, parent: dict[str, Any] | None, **details: Any) -> None:
    """Write ``provenance.json`` into a model folder; call it last, over finished files.

    Parameters
    ----------
    folder : Path
        A model folder (it may still carry its temporary name).
    kind : str
        What made it: ``pretrain``, ``sft``, ``rlvr``, ``contrastive``, ``merge``.
    parent : dict or None
        ``{"path", "revision", "content_hash"}`` of what it was made from; None beside a detail ``parents``, a list.
    **details
        Anything that was decisive: step, settings, results of gates.
    """
    record = {
        "kind": kind,
        "content_hash": content_hash(folder),
        "parent": parent,
        **details,
        "versions": versions(),
    }
    write_json(folder / FILE, record, summed=True)


def read_provenance(folder: Path) -> dict[str, Any] | None:
    """Return the record of a model folder, or None where there is none.

    Raises
    ------
    InputError
        If the record is damaged.
    """
    path = folder / FILE
    return read_json(path, todo="restore the file, or save the model again") if path.exists() else None


def verify_recorded(folder: Path) -> None:
    """Refuse a model whose files contradict its provenance; one without provenance is a model of others.

    Raises
    ------
    InputError
        If a file was changed or damaged after it was written.
    """
    record = read_provenance(folder)
    if record is not None and record.get("content_hash") != content_hash(folder):
        raise InputError(
            f"the files differ from what {FILE} recorded",
            where=str(folder),
            todo=f"restore the folder, or make the model again; if the change is meant, delete its {FILE}",
        )


@dataclass(frozen=True)
class Ancestor:
    """A model that the published one was made from, at some distance.

    Attributes
    ----------
    name : str
        Hub id, or the name of a folder.
    kind : str
        What made it (``pretrain``, ``sft``, ``rlvr``, ``contrastive``, ...), ``hub`` or ``random``; ``unknown``
        where its folder has no record.
    depth : int
        1 for a parent, 2 for a parent's parent.
    revision, content_hash : str or None
        As its child recorded them.
    """

    name: str
    kind: str
    depth: int
    revision: str | None = None
    content_hash: str | None = None


def ancestors(record: dict[str, Any], lineage: Path | None, depth: int = 1) -> Iterator[Ancestor]:
    """Follow ``parent`` (or ``parents``, of a merged model) as far as their records are on this machine.

    Parameters
    ----------
    record : dict
        A ``provenance.json``.
    lineage : Path or None
        Folder of the experiment's backbones, for paths that no longer resolve.
    depth : int
        Distance of the parents from the published model.
    """
    for parent in parents(record):
        if "path" not in parent:
            name = f"{(parent.get('architecture') or {}).get('model_type', 'a decoder')}, random weights"
            yield Ancestor(name, "random", depth)
            continue
        path, recorded = str(parent["path"]), parent.get("content_hash")
        places = [Path(path), *([lineage / Path(path).name] if lineage else [])]
        folder = next((place for place in places if _is(place, recorded)), None)
        if folder is None and recorded is None and is_hub_id(path) and not Path(path).is_dir():
            yield Ancestor(path, "hub", depth, parent.get("revision"))
            continue
        own = (read_provenance(folder) if folder else None) or {}
        name = Path(path).name
        if own.get("kind") == "contrastive" and own.get("run"):
            name = f"{own['run']} {name}"
        yield Ancestor(name, str(own.get("kind", "unknown")), depth, parent.get("revision"), recorded)
        yield from ancestors(own, lineage, depth + 1)


def parents(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parents that a provenance record names: one, several, or none."""
    found = record.get("parents") or record.get("parent") or []
    found = [found] if isinstance(found, dict) else found
    return [parent for parent in found if isinstance(parent, dict)]


def _is(folder: Path, recorded: str | None) -> bool:
    if recorded is None or not folder.is_dir():
        return False
    return (read_provenance(folder) or {}).get("content_hash") == recorded
