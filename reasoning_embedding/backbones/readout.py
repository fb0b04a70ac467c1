"""The readout of an embedder: how token states become a vector, and what a saved model's files say of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reasoning_embedding.errors import ContractError, InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Attention = Literal["bidirectional", "causal"]
PoolingMode = Literal["mean", "last", "weighted_mean", "first"]

#: Modes of pooling under the names that sentence-transformers has for them.
LIBRARY_POOLING: dict[PoolingMode, str] = {
    "mean": "mean",
    "last": "lasttoken",
    "weighted_mean": "weightedmean",
    "first": "cls",
}
#: Activations of a head by the word that a configuration says; others are known by their class below ``torch.nn``.
ACTIVATIONS = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
    "relu": "torch.nn.modules.activation.ReLU",
    "gelu": "torch.nn.modules.activation.GELU",
    "silu": "torch.nn.modules.activation.SiLU",
}
MODULES = "modules.json"
#: What sentence-transformers calls its Transformer's settings; older names of the same file follow.
SETTINGS = ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_xlnet_config.json")
LIBRARY_SETTINGS = "config_sentence_transformers.json"
_ADVICE = "score and embed it with sentence-transformers itself; any other number would be another model's"


@dataclass(frozen=True)
class Head:
    """One linear map after pooling: sentence-transformers' Dense module.

    Attributes
    ----------
    in_features, out_features : int
        Lengths of the vector before and after.
    bias : bool
        Whether a bias is added.
    activation : str
        A key of :data:`ACTIVATIONS`, or the dotted name of a class below ``torch.nn`` that takes no arguments.
    """

    in_features: int
    out_features: int
    bias: bool = True
    activation: str = "identity"


@dataclass(frozen=True)
class Readout:
    """How the token states of a decoder become one vector a text.

    Attributes
    ----------
    attention : {"bidirectional", "causal"}
        What a token sees: the whole text, or itself and what stands before it.
    pooling : {"mean", "last", "weighted_mean", "first"}
        ``weighted_mean`` weighs a token by its place in the text, 1 for the first (Muennighoff 2022,
        arXiv 2202.08904).
    include_prompt : bool
        Whether the prompt's tokens are pooled; they are attended to either way. Without them ``first`` takes the
        first token after the prompt, and ``weighted_mean`` keeps the weights of the others as they are.
    end_token : bool
        Whether the tokenizer ends each text with a special token, which is then what ``last`` takes.
    heads : tuple of Head
        Linear maps after pooling, in their order.
    normalize : bool
        Whether the saved model itself scales its vectors to unit length. An :class:`.embedder.Embedder` always does.
    """

    attention: Attention = "bidirectional"
    pooling: PoolingMode = "mean"
    include_prompt: bool = False
    end_token: bool = False
    heads: tuple[Head, ...] = ()
    normalize: bool = True

    @property
    def causal(self) -> bool:
        """Whether attention is causal."""
        return self.attention == "causal"

    def __str__(self) -> str:
        """Say it in words, for a line of a report."""
        parts: list[str] = [
            self.attention,
            self.pooling.replace("_", " ") + (" token" if self._one_token else ""),
        ]
        if self.pooling != "last":
            parts.append("prompt in" if self.include_prompt else "prompt out")
        if self.end_token:
            parts.append("end token")
        parts += [f"head {h.in_features} to {h.out_features} ({h.activation})" for h in self.heads]
        return ", ".join(parts)

    @property
    def _one_token(self) -> bool:
        return self.pooling in ("last", "first")


def refuse_contradiction(readout: Readout, where: str) -> None:
    """Refuse a readout by which no text could be told from another.

    Raises
    ------
    InputError
        For the first token under causal attention, which sees no other token of its text.
    """
    if readout.pooling == "first" and readout.causal:
        raise InputError(
            "pooling 'first' under causal attention reads a token that sees none of the text after it",
            where=where,
            todo="choose pooling last, mean or weighted_mean, or attention: bidirectional",
        )


@dataclass(frozen=True)
class SavedReadout:
    """What the files of a saved embedder say, beside its weights.

    Attributes
    ----------
    readout : Readout
        Its ``attention`` and ``end_token`` are those of the model's config and tokenizer.
    head_folders : tuple of str
        Where the weights of each head lie, below the model's folder.
    prompts : dict of str
        By name, such as ``query`` and ``document``.
    default_prompt_name : str or None
        The prompt of texts that are embedded without one.
    max_seq_length : int or None
        Where sentence-transformers cuts texts, if its own settings say so; else the tokenizer's and model's limits do.
    wraps_texts : bool
        Whether sentence-transformers would put texts into the tokenizer's chat template before the model reads them.
    """

    readout: Readout
    head_folders: tuple[str, ...] = ()
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    max_seq_length: int | None = None
    wraps_texts: bool = False

    def refuse_wrapped_texts(self, where: str) -> None:
        """Refuse an embedder whose texts sentence-transformers would put into a chat template.

        Raises
        ------
        ContractError
            The packed forward reads texts as they are.
        """
        if self.wraps_texts:
            raise ContractError(
                "sentence-transformers wraps its texts in the tokenizer's chat template, which the packed forward "
                "does not",
                where=where,
                todo=f"pin its text modality (modality_config in {SETTINGS[0]}), or {_ADVICE}",
            )


def is_decoder(config: PreTrainedConfig) -> bool:
    """Whether an architecture is a decoder language model."""
    from transformers.models.auto import modeling_auto

    kind = config.get_text_config().model_type
    # BERT and architectures like it have a causal form too; they are published in the masked one.
    return (
        kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and kind not in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )


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
    if not is_decoder(config):
        raise ContractError(
            f"{config.get_text_config().model_type} is no decoder language model, and packed attention does not compute "
            "what it computes",
            where=where,
            todo=f"name a decoder (qwen3, llama, gemma, ...), or {_ADVICE}",
        )


def read_readout(path: str, *, revision: str | None = None) -> SavedReadout | None:
    """Read the readout of a saved embedder from its modules.

    Parameters
    ----------
    path : str
        A folder or a Hub id.
    revision : str, optional
        Branch, tag or commit of the Hub repository.

    Returns
    -------
    SavedReadout or None
        None of a plain language model, which has no modules. Whether its tokenizer ends texts with a special token
        is known only once that is loaded: ``end_token`` is False here.

    Raises
    ------
    ContractError
        Naming the module, the pooling or the setting that the packed forward would leave out.
    InputError
        If a file of its modules is missing or cannot be read, or there is no such pooling.
    """
    modules = _read(path, MODULES, revision)
    if modules is None:
        return None
    try:
        kinds = [(str(module["type"]).rpartition(".")[2], str(module["path"])) for module in modules]
    except (TypeError, KeyError) as error:
        raise _unreadable(f"{path}/{MODULES}") from error
    names = [kind for kind, _ in kinds]
    heads = names.count("Dense")
    known = ["Transformer", "Pooling", *["Dense"] * heads]
    if names not in (known, [*known, "Normalize"]) or kinds[0][1]:
        raise ContractError(
            f"its modules are {' + '.join(names)}; the packed forward computes Transformer + Pooling, Dense and "
            "Normalize only",
            where=path,
            todo=_ADVICE,
        )
    pooling = _required(path, f"{kinds[1][1]}/config.json", revision)
    folders = tuple(folder for kind, folder in kinds if kind == "Dense")
    settings = next((found for name in SETTINGS if (found := _read(path, name, revision)) is not None), {})
    if settings.get("do_lower_case"):
        raise ContractError(
            "it lowers the case of its texts, which the packed forward does not", where=path, todo=_ADVICE
        )
    modalities = settings.get("modality_config")
    library = _read(path, LIBRARY_SETTINGS, revision) or {}
    limit = settings.get("max_seq_length")
    return SavedReadout(
        Readout(
            attention=_attention(_read(path, "config.json", revision) or {}),
            pooling=_mode(pooling, path, kinds[1][1]),
            include_prompt=bool(pooling.get("include_prompt", True)),
            heads=tuple(
                _head(_required(path, f"{folder}/config.json", revision), f"{path}/{folder}")
                for folder in folders
            ),
            normalize=names[-1] == "Normalize",
        ),
        folders,
        {str(name): prompt or "" for name, prompt in (library.get("prompts") or {}).items()},
        library.get("default_prompt_name"),
        int(limit) if limit is not None else None,
        _has_chat_template(path, revision) if modalities is None else "message" in modalities,
    )


def head_weights(path: str, folder: str, *, revision: str | None = None) -> Path:
    """Return the file of a head's weights.

    Raises
    ------
    ContractError
        If they are there in another format than safetensors.
    InputError
        If they are not there.
    """
    file = _file(path, f"{folder}/model.safetensors", revision)
    if file is not None:
        return Path(file)
    if _file(path, f"{folder}/pytorch_model.bin", revision) is not None:
        raise ContractError(
            "the weights of this head are no safetensors", where=f"{path}/{folder}", todo=_ADVICE
        )
    raise InputError(
        "the weights of this head are missing (model.safetensors)",
        where=f"{path}/{folder}",
        todo="save or download the model again",
    )


def _mode(pooling: dict[str, Any], path: str, folder: str) -> PoolingMode:
    name = pooling_mode(pooling)
    mode = next((mode for mode, theirs in LIBRARY_POOLING.items() if theirs == name), None)
    if mode is not None:
        return mode
    known = {*LIBRARY_POOLING.values(), "max", "mean_sqrt_len_tokens"}
    if not name or not set(name.split("+")) <= known:
        raise InputError(
            f"there is no pooling {name!r}",
            where=f"{path}/{folder}/config.json",
            todo=f"one of {', '.join(sorted(known))}",
        )
    raise ContractError(
        f"its pooling is {name!r}; the packed forward computes {', '.join(LIBRARY_POOLING.values())}",
        where=path,
        todo=_ADVICE,
    )


def _head(settings: dict[str, Any], where: str) -> Head:
    states = {
        settings.get(key) or "sentence_embedding" for key in ("module_input_name", "module_output_name")
    }
    if settings.get("use_residual") or states != {"sentence_embedding"}:
        raise ContractError(
            "this head does more than a linear map of the pooled vector", where=where, todo=_ADVICE
        )
    name = str(settings.get("activation_function", ACTIVATIONS["tanh"]))
    words = {theirs: word for word, theirs in ACTIVATIONS.items()}
    if not name.startswith("torch.nn."):
        raise ContractError(
            f"the activation of this head is {name}, code that is not torch's", where=where, todo=_ADVICE
        )
    try:
        sizes = int(settings["in_features"]), int(settings["out_features"])
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(f"{where}/config.json") from error
    return Head(*sizes, bias=bool(settings.get("bias", True)), activation=words.get(name, name))


def _attention(config: dict[str, Any]) -> Attention:
    both = config.get("is_causal") is False or config.get("use_bidirectional_attention") is True
    return "bidirectional" if both else "causal"


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
    chosen = [
        name.removeprefix(prefix).removesuffix("_token") for name, on in settings.items()
        if name.startswith(prefix) and on is True
    ]  # fmt: skip
    names = [name if name == "mean_sqrt_len_tokens" else name.removesuffix("_tokens") for name in chosen]
    return "+".join(names) or "mean"


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


def _required(path: str, name: str, revision: str | None) -> dict[str, Any]:
    found = _read(path, name, revision)
    if not isinstance(found, dict):
        raise _unreadable(f"{path}/{name}")
    return found


def _unreadable(where: str) -> InputError:
    return InputError(
        "not a file of a sentence-transformers model", where=where, todo="save or download the model again"
    )
