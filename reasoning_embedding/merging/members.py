"""The models of a merge: opened without their weights, and refused where they do not fit together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasoning_embedding.backbones import check_same_inputs, input_contract, load_config, load_tokenizer
from reasoning_embedding.checkpoints import content_hash, read_provenance
from reasoning_embedding.checkpoints.embedder import verify_content
from reasoning_embedding.checkpoints.tensors import TensorFolder
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json_value

from .adapters import MODULES, is_adapter, merge_adapter

#: Modules whose weights are merged, or that have none.
_KNOWN = ("Transformer", "Pooling", "Dense", "Normalize")
#: Keys of config.json that move no number of an embedder.
_NO_NUMBER = {
    "architectures",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "_name_or_path",
    "use_cache",
    "_attn_implementation_autoset",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "attention_dropout",
    "max_window_layers",
}


@dataclass(frozen=True)
class Member:
    """An embedder that is merged.

    Attributes
    ----------
    reference : str
        What the user calls it.
    folder : Path
        Where its files are: its own, or a temporary one with an adapter merged into its base.
    parent : dict
        ``path``, ``revision`` and ``content_hash``, as provenance names it.
    tensors : TensorFolder
        Its weights.
    """

    reference: str
    folder: Path
    parent: dict[str, Any]
    tensors: TensorFolder


def open_member(reference: str, path: Path, scratch: Path) -> Member:
    """Open an embedder's folder; that of an adapter is merged into its base, below `scratch`.

    Raises
    ------
    InputError
        If it is not there, is no embedder, or is damaged or half-written.
    """
    if not path.is_dir():
        raise InputError(
            f"{reference!r} names no model",
            where=str(path),
            todo="name the folder of an embedder's checkpoint",
        )
    parent: dict[str, Any] = {"path": str(path), "revision": None}
    folder = path
    if is_adapter(path):
        folder = scratch / f"adapter-{len(list(scratch.iterdir()))}"
        parent["adapter_of"] = merge_adapter(path, folder)
    elif not (path / MODULES).is_file():
        raise InputError(
            f"{reference!r} is no embedder: it has no {MODULES}",
            where=str(path),
            todo="a language model becomes one by training; name a step-NNNNNN folder of a run's checkpoints",
        )
    _check_modules(reference, folder)
    tensors = TensorFolder(folder, _heads(folder))
    if (record := read_provenance(path)) is not None:
        verify_content(path)
        parent["content_hash"] = record["content_hash"]
    else:
        parent["content_hash"] = content_hash(path)
    return Member(reference, folder, parent, tensors)


def check_members(members: Sequence[Member]) -> list[str]:
    """Refuse embedders whose weights do not mean the same, and return what else differs between them.

    Raises
    ------
    InputError
        Naming the two models and what differs: architecture, attention, tensors, tokens, modules, pooling.
    ContractError
        If they would see other token ids for the same text.
    """
    first = members[0]
    tokenizers = [load_tokenizer(str(member.folder)) for member in members]
    for member, tokenizer in zip(members[1:], tokenizers[1:], strict=True):
        _same_config(first, member)
        _same_modules(first, member)
        _same_tensors(first, member)
        if tokenizer.get_vocab() != tokenizers[0].get_vocab():
            _differ(first, member, "in the ids of tokens", "merge models that share one tokenizer")
    contracts = zip(members, tokenizers, strict=True)
    check_same_inputs({member.reference: input_contract(tokenizer) for member, tokenizer in contracts})
    prompts = [
        _json(member.folder / "config_sentence_transformers.json").get("prompts") for member in members
    ]
    return [
        f"prompts of {member.reference!r} differ; those of {first.reference!r} are kept"
        for member, own in zip(members, prompts, strict=True)
        if own != prompts[0]
    ]


def module_folders(folder: Path) -> list[Path]:
    """Folders of the modules after the transformer, which hold their settings."""
    return [folder / Path(item["path"]).name for item in _json(folder / MODULES) if item["path"]]


def layer_count(member: Member) -> int:
    """Number of decoder layers."""
    return int(load_config(str(member.folder)).get_text_config().num_hidden_layers)


def _heads(folder: Path) -> list[str]:
    """Folders of the modules that have weights of their own."""
    modules = _json(folder / MODULES)
    return [Path(item["path"]).name for item in modules if item["type"].rpartition(".")[2] == "Dense"]


def _check_modules(reference: str, folder: Path) -> None:
    kinds = [item["type"].rpartition(".")[2] for item in _json(folder / MODULES)]
    if unknown := [kind for kind in kinds if kind not in _KNOWN]:
        raise InputError(
            f"{reference!r} has a module {unknown[0]}, whose weights would be left out",
            where=str(folder / MODULES),
            todo=f"merge embedders of {', '.join(_KNOWN)}",
        )


def _same_config(a: Member, b: Member) -> None:
    left, right = (load_config(str(member.folder)).to_dict() for member in (a, b))
    keys = sorted((left.keys() | right.keys()) - _NO_NUMBER)
    # Absent and null are the same to the library that reads them; attention is causal where nothing says otherwise.
    left, right = ({"is_causal": True, **config} for config in (left, right))
    wrong = [
        f"{key} ({left.get(key)} and {right.get(key)})" for key in keys if left.get(key) != right.get(key)
    ]
    if wrong:
        _differ(a, b, f"in {', '.join(wrong[:3])}", "merge embedders of one architecture and attention")


def _same_modules(a: Member, b: Member) -> None:
    left, right = (_json(member.folder / MODULES) for member in (a, b))
    kinds = [
        [(item["path"], item["type"].rpartition(".")[2]) for item in modules] for modules in (left, right)
    ]
    if kinds[0] != kinds[1]:
        _differ(a, b, f"in modules ({kinds[0]} and {kinds[1]})", "merge embedders of the same modules")
    for folder in module_folders(a.folder):
        files = [member.folder / folder.name / "config.json" for member in (a, b)]
        settings = [_json(file) if file.is_file() else {} for file in files]
        if settings[0] != settings[1]:
            said = f"in {folder.name} ({settings[0]} and {settings[1]})"
            _differ(a, b, said, "merge embedders that pool alike")


def _same_tensors(a: Member, b: Member) -> None:
    left, right = a.tensors.shapes, b.tensors.shapes
    if unmatched := sorted(left.keys() ^ right.keys()):
        owner = a if unmatched[0] in left else b
        _differ(a, b, f"in tensors: only {owner.reference!r} has {unmatched[0]}", "merge siblings")
    wrong = next((name for name in left if left[name] != right[name]), None)
    if wrong is not None:
        said = f"in the shape of {wrong} ({left[wrong]} and {right[wrong]})"
        _differ(a, b, said, "merge models of one size")


def _differ(a: Member, b: Member, what: str, todo: str) -> None:
    raise InputError(f"{a.reference!r} and {b.reference!r} differ {what}", where="models", todo=todo)


def _json(path: Path) -> Any:
    if not path.is_file():
        raise InputError("this file of an embedder is missing", where=str(path), todo="restore the file")
    return read_json_value(path, todo="restore the file")
