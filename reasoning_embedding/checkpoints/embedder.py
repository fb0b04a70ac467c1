"""A checkpoint is a plain SentenceTransformer folder of a stock architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reasoning_embedding import config
from reasoning_embedding.backbones import (
    Embedder,
    load_decoder,
    merged_state_dict,
    require_packed_readout,
    stock_model,
)
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_folder, read_json, write_json

from .provenance import FILE, content_hash, read_provenance, write_provenance

_TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
_POOLING = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
_NORMALIZE = "sentence_transformers.base.modules.normalize.Normalize"


def save_checkpoint(
    folder: Path,
    embedder: Embedder,
    *,
    max_tokens: int,
    parent: dict[str, Any] | None,
    weights: Mapping[str, Tensor] | None = None,
    **details: Any,
) -> None:
    """Write an embedder as a folder that sentence-transformers and ``AutoModel`` load, all or nothing.

    Parameters
    ----------
    folder : Path
        Where; an existing folder is replaced.
    embedder : Embedder
        Adapters are merged into the weights that are written, never into the model.
    max_tokens : int
        Length at which whoever loads the checkpoint cuts texts.
    parent : dict or None
        What it was made from, for ``provenance.json``.
    weights : mapping, optional
        The embedder's state dict in unsharded tensors, where its own parameters are shards.
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
        embedder.tokenizer.model_max_length = max_tokens
        embedder.tokenizer.save_pretrained(temporary)
        _write_modules(temporary, embedder)
        write_provenance(temporary, kind="contrastive", parent=parent, **details)


def _write_modules(folder: Path, embedder: Embedder) -> None:
    """Write the five small files that make the folder a SentenceTransformer.

    They are written here rather than by the library because importing it takes seconds of every run; the
    tests load the result with it.
    """
    types = [("", _TRANSFORMER), ("1_Pooling", _POOLING), ("2_Normalize", _NORMALIZE)]
    write_json(
        folder / "modules.json",
        [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(types)],
    )
    # The pinned text modality keeps sentence-transformers from wrapping texts in a chat template, which
    # SFT and RLVR tokenizers have and base tokenizers lack.
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
        },
    )
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "embedding_dimension": embedder.dimension,
            "pooling_mode": "mean",
            "include_prompt": embedder.pooling.include_prompt,
        },
    )
    names = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    write_json(folder / "2_Normalize" / "config.json", names)
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "prompts": {"query": "", "document": "", **embedder.prompts},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        exact=True,  # a prompt that is not what the model was trained with makes it another model
    )


def load_embedder(path: str | Path) -> Embedder:
    """Load a checkpoint of ours, or any SentenceTransformer folder of a decoder with mean pooling.

    Raises
    ------
    InputError
        If the folder is no such checkpoint.
    ContractError
        If the packed forward would not give its vectors.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            "no such checkpoint folder", where=str(path), todo="name a step-NNNNNN folder of a run"
        )
    if not require_packed_readout(str(folder)):
        raise _no_embedder(folder)
    pooling = _read(folder / "1_Pooling" / "config.json")
    model, tokenizer = load_decoder(str(folder))
    prompts = _read(folder / "config_sentence_transformers.json").get("prompts", {})
    include = bool(pooling.get("include_prompt", True))
    return Embedder(model, tokenizer, config.Pooling(include_prompt=include), prompts)


def verify_content(folder: Path) -> None:
    """Refuse a checkpoint whose files are not the ones its provenance recorded.

    Raises
    ------
    InputError
        If a file was changed or damaged after it was written.
    """
    record = read_provenance(folder)
    if record is None or record["content_hash"] != content_hash(folder):
        raise InputError(
            f"the files differ from what {FILE} recorded",
            where=str(folder),
            todo="delete this folder and its state, and resume from the one before",
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, todo="save or download the model again")
    except OSError as error:
        raise _no_embedder(path) from error


def _no_embedder(path: Path) -> InputError:
    return InputError(
        "not a sentence-transformers checkpoint", where=str(path), todo="name a checkpoint folder of a run"
    )
