"""How a saved model turns token states into vectors, and whether the packed forward computes the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_embedding.errors import ContractError, InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_MODULES = "modules.json"
_SETTINGS = "sentence_bert_config.json"
_ADVICE = "score and embed it with sentence-transformers itself; any other number would be another model's"


def require_decoder(config: PreTrainedConfig, where: str) -> None:
    """Refuse an encoder (BERT, MPNet, ...) and every architecture that is no decoder language model.

    Parameters
    ----------
    config : PreTrainedConfig
        Of the model.
    where : str
        Its name, for the error.

    Raises
    ------
    ContractError
        Naming the architecture.
    """
    from transformers.models.auto import modeling_auto

    kind = config.get_text_config().model_type
    decoders = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    # BERT and architectures like it have a causal form too; they are published in the masked one.
    if kind not in decoders or kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise ContractError(
            f"{kind} is no decoder language model, and packed attention does not compute what it computes",
            where=where,
            todo=f"name a decoder (qwen3, llama, gemma, ...), or {_ADVICE}",
        )


def require_packed_readout(path: str, *, revision: str | None = None) -> bool:
    """Refuse an embedder whose modules are more, or other, than Transformer, mean Pooling and Normalize.

    Parameters
    ----------
    path : str
        A folder or a Hub id.
    revision : str, optional
        Branch, tag or commit of the Hub repository.

    Returns
    -------
    bool
        Whether it is an embedder at all; a plain language model has no modules.

    Raises
    ------
    ContractError
        Naming the module, the pooling or the setting that the packed forward would leave out.
    InputError
        If a file of its modules cannot be read.
    """
    modules = _read(path, _MODULES, revision)
    if modules is None:
        return False
    try:
        kinds = [(str(module["type"]).rpartition(".")[2], str(module["path"])) for module in modules]
    except (TypeError, KeyError) as error:
        raise _unreadable(f"{path}/{_MODULES}") from error
    names = " + ".join(kind for kind, _ in kinds)
    if [kind for kind, _ in kinds] != ["Transformer", "Pooling", "Normalize"] or kinds[0][1]:
        raise ContractError(
            f"its modules are {names}; the packed forward computes Transformer + Pooling + Normalize only",
            where=path,
            todo=_ADVICE,
        )
    pooling = _read(path, f"{kinds[1][1]}/config.json", revision)
    if not isinstance(pooling, dict):
        raise _unreadable(f"{path}/{kinds[1][1]}/config.json")
    if (mode := pooling_mode(pooling)) != "mean":
        raise ContractError(
            f"its pooling is {mode!r}; the packed forward computes the mean", where=path, todo=_ADVICE
        )
    settings = _read(path, _SETTINGS, revision) or {}
    if settings.get("do_lower_case"):
        raise ContractError(
            "it lowers the case of its texts, which the packed forward does not", where=path, todo=_ADVICE
        )
    if settings.get("modality_config") is None and _has_chat_template(path, revision):
        raise ContractError(
            "sentence-transformers wraps its texts in the tokenizer's chat template, which the packed forward does not",
            where=path,
            todo=f"pin its text modality (modality_config in {_SETTINGS}), or {_ADVICE}",
        )
    return True


def _has_chat_template(path: str, revision: str | None) -> bool:
    if _file(path, "chat_template.jinja", revision) is not None:
        return True
    return bool((_read(path, "tokenizer_config.json", revision) or {}).get("chat_template"))


def pooling_mode(settings: dict[str, Any]) -> str:
    """Return the name of a Pooling module's mode from its ``config.json``, in its new or its old form."""
    if "pooling_mode" in settings:
        mode = settings["pooling_mode"]
        return mode if isinstance(mode, str) else "+".join(map(str, mode))
    prefix = "pooling_mode_"
    return "+".join(
        name.removeprefix(prefix).removesuffix("_tokens").removesuffix("_token")
        for name, chosen in settings.items()
        if name.startswith(prefix) and chosen is True
    )


def _file(path: str, name: str, revision: str | None) -> str | None:
    """Return one file of a folder or Hub repository; None where it has no such file."""
    from transformers.utils.hub import cached_file

    try:
        return cached_file(path, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError):
        return None  # unreachable, or no such repository: loading it says so in its own words


def _read(path: str, name: str, revision: str | None) -> Any:
    """JSON of one file of a folder or Hub repository; None where it has no such file."""
    file = _file(path, name, revision)
    if file is None:
        return None
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(file) from error


def _unreadable(where: str) -> InputError:
    return InputError(
        "not a file of a sentence-transformers model", where=where, todo="save or download the model again"
    )
