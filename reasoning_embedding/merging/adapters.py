"""A folder of a LoRA adapter becomes an embedder of its own: merged into its base first."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from reasoning_embedding.backbones import load_decoder, load_tokenizer, read_readout
from reasoning_embedding.checkpoints import content_hash
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json, read_json_value

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
#: Says which modules an embedder is made of; a language model has none.
MODULES = "modules.json"
#: Files that make a folder an embedder; a folder of an adapter may carry them, else its base does.
_EMBEDDER_FILES = (MODULES, "sentence_bert_config.json", "config_sentence_transformers.json")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter instead of a model."""
    return (folder / CONFIG).is_file()


def merge_adapter(folder: Path, target: Path) -> dict[str, Any]:
    """Write base plus adapter as an embedder with bidirectional attention.

    Parameters
    ----------
    folder : Path
        As peft or sentence-transformers saved it.
    target : Path
        Receives the embedder; must not exist.

    Returns
    -------
    dict
        ``path`` and ``content_hash`` (None on the Hub) of the base, as the adapter names it.

    Raises
    ------
    InputError
        If the adapter is no safetensors file, does not fit its base, or neither of them is an embedder.

    Notes
    -----
    An adapter's folder has no config.json, so a language model that it was trained on reloads causal; the embedder
    written here says ``is_causal: false``, as that of its training did.
    """
    from peft import PeftModel, get_peft_model_state_dict

    settings = _settings(folder)
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError(
            "the adapter does not say what its base is",
            where=str(folder / CONFIG),
            todo="set base_model_name_or_path",
        )
    # A language model became bidirectional when adapters were trained on it; an embedder attends as it says itself.
    own = True if read_readout(base) is None else None
    model, _ = load_decoder(base, bidirectional=own, implementation="sdpa")
    todo = "set base_model_name_or_path to the model it was trained on"
    try:
        with warnings.catch_warnings(), safe_open(folder / WEIGHTS, framework="pt") as file:
            warnings.simplefilter("ignore")  # what peft warns of is an error below
            stored = set(file.keys())
            adapted: Any = PeftModel.from_pretrained(model, str(folder))
    except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        raise InputError(
            f"the adapter does not fit its base {base}: {error}", where=str(folder), todo=todo
        ) from error
    if unknown := sorted(stored - set(get_peft_model_state_dict(adapted))):
        raise InputError(
            f"the adapter does not fit its base {base}: there is no place for {unknown[0]}",
            where=str(folder),
            todo=todo,
        )
    with torch.no_grad():
        merged = adapted.merge_and_unload()
    target.mkdir(parents=True)
    merged.save_pretrained(target)
    source = folder if (folder / "tokenizer_config.json").is_file() else Path(base)
    load_tokenizer(str(source)).save_pretrained(target)
    _copy_embedder(folder, Path(base), target)
    return {"path": base, "content_hash": content_hash(Path(base)) if Path(base).is_dir() else None}


def _settings(folder: Path) -> dict[str, Any]:
    if not (folder / WEIGHTS).is_file():
        raise InputError(
            f"an adapter without {WEIGHTS}", where=str(folder), todo="save the adapter as safetensors"
        )
    return read_json(folder / CONFIG, todo="restore the file")


def _copy_embedder(folder: Path, base: Path, target: Path) -> None:
    source = next((place for place in (folder, base) if (place / MODULES).is_file()), None)
    if source is None:
        raise InputError(
            "neither the adapter nor its base is an embedder: there is no modules.json",
            where=str(folder),
            todo="name as base the embedder it was trained on, such as step 0 of its run",
        )
    for item in read_json_value(source / MODULES, todo="restore the file"):
        if name := Path(item["path"]).name:
            shutil.copytree(source / name, target / name)
    for name in _EMBEDDER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
