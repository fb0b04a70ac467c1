"""A checkpoint is a plain SentenceTransformer folder of a stock architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from reasoning_embedding.backbones import (
    LIBRARY_POOLING,
    Embedder,
    activation_name,
    ends_texts,
    head_state_dicts,
    load_decoder,
    load_heads,
    merged_state_dict,
    read_readout,
    stock_model,
)
from reasoning_embedding.backbones.readout import LIBRARY_SETTINGS, MODULES, SETTINGS
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_folder, write_json

from .provenance import FILE, content_hash, read_provenance, verify_recorded, write_provenance

_TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
_POOLING = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
_DENSE = "sentence_transformers.base.modules.dense.Dense"
_NORMALIZE = "sentence_transformers.base.modules.normalize.Normalize"


def save_checkpoint(
    folder: Path,
    embedder: Embedder,
    *,
    parent: dict[str, Any] | None,
    weights: Mapping[str, Tensor] | None = None,
    max_tokens: int | None = None,
    **details: Any,
) -> None:
    """Write an embedder as a folder that sentence-transformers and ``AutoModel`` load, all or nothing.

    Parameters
    ----------
    folder : Path
        Where; an existing folder is replaced.
    embedder : Embedder
        Adapters are merged into the weights that are written, never into the model.
    parent : dict or None
        What it was made from, for ``provenance.json``.
    weights : mapping, optional
        The embedder's state dict in unsharded tensors, where its own parameters are shards.
    max_tokens : int, optional
        Length at which whoever loads the checkpoint cuts texts. Absent: the embedder's own limit.
    **details
        Further provenance: step, run, settings.

    Raises
    ------
    SetupError
        When the disk is full or the folder cannot be written.
    """
    with atomic_folder(folder) as temporary:
        with torch.no_grad():
            merged = merged_state_dict(embedder, weights)
        stock_model(embedder).save_pretrained(temporary, state_dict=merged)
        embedder.tokenizer.model_max_length = max_tokens or embedder.max_tokens
        embedder.tokenizer.save_pretrained(temporary)
        _write_modules(temporary, embedder, weights)
        write_provenance(temporary, kind="contrastive", parent=parent, **details)


def _write_modules(folder: Path, embedder: Embedder, weights: Mapping[str, Tensor] | None) -> None:
    """Write the small files that make the folder a SentenceTransformer, and the weights of its heads.

    They are written here rather than by the library because importing it takes seconds of every run; the
    tests load the result with it.
    """
    readout = embedder.readout
    types = [_TRANSFORMER, _POOLING, *[_DENSE] * len(readout.heads), *[_NORMALIZE] * readout.normalize]
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{kind.rpartition('.')[2]}" if index else "",
            "type": kind,
        }
        for index, kind in enumerate(types)
    ]
    write_json(folder / MODULES, modules)
    # The pinned text modality keeps sentence-transformers from wrapping texts in a chat template, which
    # SFT and RLVR tokenizers have and base tokenizers lack.
    write_json(
        folder / SETTINGS[0],
        {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
        },
    )
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "embedding_dimension": int(embedder.model.config.hidden_size),
            "pooling_mode": LIBRARY_POOLING[readout.pooling],
            "include_prompt": readout.include_prompt,
        },
    )
    names = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    for place, (head, tensors) in enumerate(
        zip(readout.heads, head_state_dicts(embedder, weights), strict=True), start=2
    ):
        settings = {**asdict(head), "activation_function": activation_name(head.activation), **names}
        del settings["activation"]
        write_json(folder / f"{place}_Dense" / "config.json", settings)
        save_file(tensors, folder / f"{place}_Dense" / "model.safetensors")
    if readout.normalize:
        write_json(folder / f"{len(types) - 1}_Normalize" / "config.json", names)
    write_json(
        folder / LIBRARY_SETTINGS,
        {
            "model_type": "SentenceTransformer",
            "prompts": {"query": "", "document": "", **embedder.prompts},
            "default_prompt_name": embedder.default_prompt_name,
            "similarity_fn_name": "cosine",
        },
        exact=True,  # a prompt that is not what the model was trained with makes it another model
    )


def load_embedder(path: str | Path) -> Embedder:
    """Load a checkpoint of ours, or any SentenceTransformer folder of a decoder that the packed forward computes.

    Raises
    ------
    InputError
        If the folder is no such checkpoint, or a file of it is missing, unreadable or not the one that was written.
    ContractError
        If the packed forward would not give its vectors.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            "no such checkpoint folder", where=str(path), todo="name a step-NNNNNN folder of a run"
        )
    verify_recorded(folder)
    saved = read_readout(str(folder))
    if saved is None:
        raise _no_embedder(folder)
    saved.refuse_wrapped_texts(str(folder))
    model, tokenizer = load_decoder(str(folder))
    embedder = Embedder(
        model,
        tokenizer,
        replace(saved.readout, end_token=ends_texts(tokenizer)),
        saved.prompts,
        default_prompt_name=saved.default_prompt_name,
        max_tokens=saved.max_seq_length,
    )
    load_heads(embedder.heads, str(folder), saved.head_folders)
    return embedder.eval()


def verify_content(folder: Path) -> None:
    """Refuse a checkpoint whose files are not the ones its provenance recorded.

    Raises
    ------
    InputError
        If a file was changed or damaged after it was written.
    """
    record = read_provenance(folder)
    if record is None or record.get("content_hash") != content_hash(folder):
        raise InputError(
            f"the files differ from what {FILE} recorded",
            where=str(folder),
            todo="delete this folder and its state, and resume from the one before",
        )


def _no_embedder(path: Path) -> InputError:
    return InputError(
        "not a sentence-transformers checkpoint", where=str(path), todo="name a checkpoint folder of a run"
    )
