"""Loading a decoder of any supported family, causal as saved or made bidirectional."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from reasoning_embedding import config
from reasoning_embedding.errors import InputError, SetupError

from . import attention
from .layers import set_causal
from .readout import require_decoder

if TYPE_CHECKING:
    from collections.abc import Generator

    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


@contextlib.contextmanager
def _explain(path: str, revision: str | None) -> Generator[None]:
    """Turn what transformers raises for a missing or unreadable checkpoint into an error with a cure."""
    where = path if revision is None else f"{path}@{revision}"
    try:
        yield
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"cannot load this checkpoint: {first_line}",
            where=where,
            todo="name a folder with config.json, safetensors and a tokenizer, or a Hub id that can be reached",
        ) from error


@contextlib.contextmanager
def _without_load_report() -> Generator[None]:
    """Keep transformers from reporting the language-model head, which an encoder leaves behind on purpose."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _check_path(path: str, revision: str | None) -> None:
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1
    if looks_local and not Path(path).is_dir():
        raise InputError(
            "no such folder", where=path, todo="check backbone.path; a Hub id has the form owner/name"
        )
    if revision is not None and Path(path).is_dir():
        raise InputError(
            f"a folder has no revisions, so {revision!r} names nothing",
            where=path,
            todo="leave the revision out, or name a model of the Hub",
        )


def load_tokenizer(path: str, *, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load a tokenizer and give it a padding token if it has none.

    Padding never reaches the model here, but sentence-transformers pads when it loads a checkpoint, so the
    end-of-text token stands in where there is no padding token (padding is masked, so this changes nothing).

    Raises
    ------
    InputError
        If there is no tokenizer, or it has neither a padding nor an end token.
    """
    from transformers import AutoTokenizer

    _check_path(path, revision)
    with _explain(path, revision):
        tokenizer: Any = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    if tokenizer.pad_token is None:
        stand_in = tokenizer.eos_token or tokenizer.unk_token
        if stand_in is None:
            raise InputError(
                "the tokenizer has no pad_token, and no eos_token or unk_token that could stand in",
                where=path,
                todo="set pad_token in tokenizer_config.json",
            )
        log.info("the tokenizer of %s has no pad token; %r stands in (padding is masked)", path, stand_in)
        tokenizer.pad_token = stand_in
    tokenizer.padding_side = "right"
    return tokenizer


def load_config(path: str, *, revision: str | None = None) -> PreTrainedConfig:
    """Load a decoder's configuration, without weights."""
    from transformers import AutoConfig

    _check_path(path, revision)
    with _explain(path, revision):
        model_config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    _keeps_its_window(model_config, path)
    return model_config


def _keeps_its_window(model_config: PreTrainedConfig, path: str) -> None:
    """Refuse a windowed model of Gemma's own switch where transformers narrows its window at each save and load."""
    text = model_config.get_text_config()
    if getattr(text, "use_bidirectional_attention", None) is not True:
        return
    if type(text).from_dict(text.to_dict()).sliding_window != text.sliding_window:
        import transformers

        raise SetupError(
            f"transformers {transformers.__version__} halves this model's attention window whenever it is saved and "
            "loaded again, so its checkpoints would be other models",
            where=path,
            todo="install a newer transformers",
        )


def load_decoder(
    path: str,
    *,
    revision: str | None = None,
    bidirectional: bool | None = None,
    dtype: torch.dtype = torch.float32,
    implementation: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a decoder without its language-model head, in evaluation mode, and its tokenizer.

    Parameters
    ----------
    path : str
        A folder or a Hub id.
    revision : str, optional
        Branch, tag or commit of the Hub repository.
    bidirectional : bool, optional
        True makes attention bidirectional (``config.is_causal = False``), False causal, None keeps what the
        checkpoint says (causal where it says nothing).
    dtype : torch.dtype
        Of the parameters.
    implementation : str, optional
        Attention implementation; default ``packed``.

    Raises
    ------
    InputError
        If the checkpoint cannot be loaded.
    ContractError
        If it is no decoder.
    """
    from transformers import AutoModel

    model_config = load_config(path, revision=revision)
    require_decoder(model_config, path)
    if bidirectional is not None:
        # The attribute must sit on the config object: from_pretrained(is_causal=...) is refused or dropped.
        set_causal(model_config, not bidirectional)
    tokenizer = load_tokenizer(path, revision=revision)
    with _explain(path, revision), _without_load_report():
        model, loading = AutoModel.from_pretrained(
            path,
            config=model_config,
            revision=revision,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    if absent := sorted(loading["missing_keys"]):
        raise InputError(
            f"{len(absent)} weights are not in this checkpoint ({absent[0]}, ...)",
            where=path,
            todo="random weights in their place would train without a word; name a complete checkpoint",
        )
    return _prepare(model, path, implementation), tokenizer


def untrained_decoder(path: str, *, revision: str | None = None, seed: int = 0) -> PreTrainedModel:
    """A decoder of a checkpoint's architecture whose weights are drawn anew as before any training, on the CPU.

    Raises
    ------
    InputError
        If the checkpoint's configuration cannot be read.
    """
    from transformers import AutoModel

    model_config = load_config(path, revision=revision)
    with torch.random.fork_rng(devices=[]), _explain(path, revision):
        torch.manual_seed(seed)
        model = AutoModel.from_config(model_config, dtype=torch.float32)
    return _prepare(model, path, None)


def build_backbone(
    backbone: config.Backbone, *, dtype: torch.dtype = torch.float32, bidirectional: bool = True
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load or build what a run's ``backbone`` section describes, bidirectional unless told otherwise.

    Random weights are drawn on the CPU from the section's own seed, so they do not depend on the device.
    """
    if isinstance(backbone, config.PretrainedBackbone):
        return load_decoder(
            backbone.path, revision=backbone.revision, bidirectional=bidirectional, dtype=dtype
        )
    from transformers import AutoModel

    from .architecture import build_config

    tokenizer = load_tokenizer(backbone.tokenizer)
    model_config = build_config(backbone.architecture, len(tokenizer), tokenizer)
    set_causal(model_config, not bidirectional)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(backbone.seed)
        model = AutoModel.from_config(model_config, dtype=dtype)
    return _prepare(model, backbone.architecture.model_type, None), tokenizer


def _prepare(model: Any, where: str, implementation: str | None) -> Any:
    with _explain(where, None):
        model.set_attn_implementation(implementation or attention.register())
    model.config.use_cache = False
    return model.eval()
