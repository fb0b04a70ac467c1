"""One merge: a tensor at a time from the models' folders into a new one, all or nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from reasoning_embedding import config
from reasoning_embedding.backbones import check_attention
from reasoning_embedding.checkpoints import read_provenance, write_provenance
from reasoning_embedding.checkpoints.embedder import load_embedder, verify_content
from reasoning_embedding.checkpoints.provenance import FILE as PROVENANCE
from reasoning_embedding.checkpoints.tensors import INDEX, SHARD_BYTES, WHOLE, TensorFolder, TensorWriter
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_folder, read_json, require_space, size_of, write_json

from .distances import fell_back, summary, tensor_record
from .members import Member, check_members, layer_count, module_folders, open_member
from .tensor_merge import TensorMerge

#: Files that make an embedder's folder what it is, beside its weights and records.
_INHERITED = {".json", ".txt", ".model", ".jinja"}
_RECORDS = {PROVENANCE, INDEX}


@dataclass(frozen=True)
class Models:
    """What is merged, opened and checked.

    Attributes
    ----------
    members : tuple of Member
        The base first, where the method has one.
    has_base : bool
        Whether the first is a base.
    warnings : tuple of str
        What differs between them and decides nothing.
    """

    members: tuple[Member, ...]
    has_base: bool
    warnings: tuple[str, ...]

    @property
    def parents(self) -> list[dict[str, Any]]:
        """The models as provenance names them."""
        roles = ["base"] if self.has_base else []
        roles += ["model"] * (len(self.members) - len(roles))
        return [{**member.parent, "role": role} for member, role in zip(self.members, roles, strict=True)]


@contextmanager
def open_models(
    models: Sequence[tuple[str, Path]], base: tuple[str, Path] | None = None
) -> Generator[Models]:
    """Open embedders by (reference, folder) and refuse those that do not fit together.

    Raises
    ------
    InputError
        If one is missing, damaged or no embedder, or two of them differ in more than their weights.
    """
    with tempfile.TemporaryDirectory(prefix="reasoning-embedding-merge-") as scratch:
        named = [base, *models] if base else list(models)
        members = tuple(open_member(reference, path, Path(scratch)) for reference, path in named)
        yield Models(members, base is not None, tuple(check_members(members)))


def merge(
    models: Models,
    method: config.MergeMethod,
    folder: Path,
    report: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:
    """Write the merge of `models` as an embedder; what is there already, made of the same, stays.

    Parameters
    ----------
    models : Models
        Opened and checked.
    method : config.MergeMethod
        How.
    folder : Path
        Where; another model there is replaced.
    report : Path
        The JSON file of the report, outside of `folder`.
    shard_bytes : int
        Most bytes of a file of weights.

    Returns
    -------
    dict
        The report: ``method``, ``parameters``, ``parents``, ``content_hash``, ``tensors`` (a record each, see
        :func:`~.distances.tensor_record`; with SLERP also ``t`` and ``lerp``), ``summary``, ``warnings`` and ``made``,
        false where the merge was there.

    Raises
    ------
    InputError
        If the method does not fit the models.
    ContractError
        If what comes out does not attend as the models do.

    Notes
    -----
    Module configurations, pooling, prompts, tokenizer and config.json come from the first model (tied
    embeddings are one tensor in the file, and stay so). Attention is checked before the folder gets its name.
    """
    first = models.members[0]
    prepared = TensorMerge(
        method, len(models.members) - models.has_base, layer_count(first), first.tensors.names
    )
    made_from = {"parents": models.parents, **prepared.describe()}
    if (old := _made_before(folder, report, made_from)) is not None:
        return {**old, "made": False}
    require_space(folder, size_of(first.folder), "the merged model")
    with atomic_folder(folder) as temporary:
        _inherit(first.folder, temporary)
        records = _write_weights(models, prepared, temporary, shard_bytes)
        _check(first, temporary)
        total = summary(records)
        write_provenance(temporary, kind="merge", parent=None, **made_from, merge=total)
        found = {
            **made_from,
            "content_hash": (read_provenance(temporary) or {}).get("content_hash"),
            "summary": total,
            "warnings": list(models.warnings),
            "tensors": records,
        }
        write_json(report, found, summed=True)
    return {**found, "made": True}


def _made_before(folder: Path, report: Path, made_from: dict[str, Any]) -> dict[str, Any] | None:
    """Return the report of a merge that is there, undamaged and made from the same; None where there is none."""
    record = read_provenance(folder)
    if record is None or any(record.get(key) != value for key, value in made_from.items()):
        return None
    verify_content(folder)
    old = read_json(report, default={})
    return old if old.get("content_hash") == record["content_hash"] else None


def _inherit(source: Path, target: Path) -> None:
    """Copy configuration, tokenizer and modules of the first model."""
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix in _INHERITED and path.name not in _RECORDS:
            shutil.copyfile(path, target / path.name)
    for folder in module_folders(source):
        shutil.copytree(folder, target / folder.name)


def _write_weights(
    models: Models, prepared: TensorMerge, folder: Path, shard_bytes: int
) -> list[dict[str, Any]]:
    sources: list[TensorFolder] = [member.tensors for member in models.members]
    first = sources[0]
    sizes = {name: first.size(name) for name in first.names if first.head_of(name) is None}
    writer = TensorWriter(folder, sizes, shard_bytes)
    heads: dict[str, dict[str, Tensor]] = {head: {} for head in first.heads}
    records = []
    for name in first.names:
        tensors = [source.read(name) for source in sources]
        merged = prepared.merge(name, tensors)
        if not bool(merged.isfinite().all()):
            raise InputError(
                f"{name} is not finite after merging", where=str(folder), todo="look for NaN in the models"
            )
        record = tensor_record(name, tensors, merged)
        if isinstance(prepared.method, config.Slerp):
            record |= {**prepared.parameters(name), "lerp": fell_back(record)}
        records.append(record)
        if (head := first.head_of(name)) is None:
            writer.add(name, merged)
        else:
            heads[head][name.partition("/")[2]] = merged.contiguous()
    writer.close()
    for head, tensors in heads.items():
        save_file(tensors, folder / head / WHOLE)
    return records


def _check(first: Member, folder: Path) -> None:
    """Load what was written and hold it to the attention contract."""
    embedder = load_embedder(folder)
    causal = embedder.readout.causal
    check_attention(embedder.model, where=f"the merge of {first.reference} and others", causal=causal)
