"""A checkpoint that is given: its files become the first stage of a lineage, as they are."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from reasoning_embedding.backbones.load import load_tokenizer
from reasoning_embedding.config.lineage import GivenStage
from reasoning_embedding.errors import InputError, SetupError
from reasoning_embedding.files import read_json

_WEIGHTS = "*.safetensors"
_TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.jinja",
    "*.model",
)
_PATTERNS = (_WEIGHTS, "*.safetensors.index.json", "config.json", "generation_config.json", *_TOKENIZER)


def take_given(stage: GivenStage, tokenizer_folder: Path | None, target: Path) -> PreTrainedTokenizerBase:
    """Put a given checkpoint's weights, configurations and tokenizer into a folder.

    Parameters
    ----------
    stage : GivenStage
        Names a folder or a Hub id and its revision.
    tokenizer_folder : Path or None
        The model whose tokenizer takes the place of its own.
    target : Path
        An empty folder. Files of the Hub's cache are linked where that is possible.

    Returns
    -------
    PreTrainedTokenizerBase
        The tokenizer the stage now has.

    Raises
    ------
    InputError
        If it is no causal checkpoint with safetensors and a tokenizer, or the tokenizer has more tokens than
        the model embeds.
    SetupError
        If the Hub cannot be reached.
    """
    source = Path(stage.path).expanduser()
    if not source.is_dir():
        source = _downloaded(stage)
    own = _TOKENIZER if tokenizer_folder is not None else ()
    for file in _matching(source, _PATTERNS):
        if file not in _matching(source, own):
            _link_or_copy(file, target / file.name)
    if tokenizer_folder is not None:
        for file in _matching(tokenizer_folder, _TOKENIZER):
            shutil.copyfile(file, target / file.name)
    if not list(target.glob(_WEIGHTS)) or not (target / "config.json").is_file():
        raise InputError(
            "this is no checkpoint with config.json and safetensors",
            where=stage.path,
            todo="name another folder",
        )
    tokenizer = load_tokenizer(str(target))
    rows = read_json(target / "config.json").get("vocab_size")
    if isinstance(rows, int) and len(tokenizer) > rows:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens, the model embeds {rows}",
            where=f"stage {stage.name}",
            todo="choose another tokenizer_of, or none",
        )
    return tokenizer


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def _link_or_copy(file: Path, target: Path) -> None:
    """Link a blob of the Hub's cache, which never changes; copy anything else."""
    if file.is_symlink():
        with contextlib.suppress(OSError):  # another disk
            os.link(file.resolve(), target)
            return
    shutil.copyfile(file, target)


def _downloaded(stage: GivenStage) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    where = stage.path if stage.revision is None else f"{stage.path}@{stage.revision}"
    try:
        return Path(snapshot_download(stage.path, revision=stage.revision, allow_patterns=list(_PATTERNS)))
    except HFValidationError as error:
        raise InputError(
            "neither a folder nor a Hub id", where=where, todo="name a folder, or OWNER/NAME of the Hub"
        ) from error
    except LocalEntryNotFoundError as error:
        raise SetupError(
            "the Hub cannot be reached and the model is not in its cache",
            where=where,
            todo="check the network and HF_HUB_OFFLINE, or name a local folder",
        ) from error
    except HfHubHTTPError as error:
        raise InputError(
            f"the Hub refuses it: {str(error).splitlines()[0]}",
            where=where,
            todo="check the id, the revision and your access (hf auth login)",
        ) from error
