"""Sizes of a run's backbone, from what is at hand without a network: a folder, numbers, or a known Hub id."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

from reasoning_embedding import config
from reasoning_embedding.config.reading.suggestions import did_you_mean
from reasoning_embedding.errors import InputError

from .flops import DecoderShape, decoder_shape

_QWEN3, _QWEN2, _LLAMA3 = 151_936, 151_936, 128_256
#: Layers, width, MLP width, heads, key-value heads, width of a head, vocabulary: of each model's config.json.
_SIZES = {
    "Qwen/Qwen3-0.6B": (28, 1024, 3072, 16, 8, 128, _QWEN3),
    "Qwen/Qwen3-1.7B": (28, 2048, 6144, 16, 8, 128, _QWEN3),
    "Qwen/Qwen3-4B": (36, 2560, 9728, 32, 8, 128, _QWEN3),
    "Qwen/Qwen3-8B": (36, 4096, 12288, 32, 8, 128, _QWEN3),
    "Qwen/Qwen2.5-0.5B": (24, 896, 4864, 14, 2, 64, _QWEN2),
    "Qwen/Qwen2.5-1.5B": (28, 1536, 8960, 12, 2, 128, _QWEN2),
    "Qwen/Qwen2.5-3B": (36, 2048, 11008, 16, 2, 128, _QWEN2),
    "Qwen/Qwen2.5-7B": (28, 3584, 18944, 28, 4, 128, 152_064),
    "Qwen/Qwen2.5-Math-1.5B": (28, 1536, 8960, 12, 2, 128, _QWEN2),
    "Qwen/Qwen2.5-Math-7B": (28, 3584, 18944, 28, 4, 128, 152_064),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": (28, 1536, 8960, 12, 2, 128, _QWEN2),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": (28, 3584, 18944, 28, 4, 128, 152_064),
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": (32, 4096, 14336, 32, 8, 128, _LLAMA3),
    "meta-llama/Llama-3.2-1B": (16, 2048, 8192, 32, 8, 64, _LLAMA3),
    "meta-llama/Llama-3.2-3B": (28, 3072, 8192, 24, 8, 128, _LLAMA3),
    "meta-llama/Llama-3.1-8B": (32, 4096, 14336, 32, 8, 128, _LLAMA3),
    "mistralai/Mistral-7B-v0.3": (32, 4096, 14336, 32, 8, 128, 32_768),
}
#: Fine-tuned models that keep the sizes of another.
_SAME_SIZES = {
    "nvidia/Nemotron-Research-Reasoning-Qwen-1.5B": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "hkust-nlp/Qwen-2.5-0.5B-SimpleRL-Zoo": "Qwen/Qwen2.5-0.5B",
    "hkust-nlp/Qwen-2.5-1.5B-SimpleRL-Zoo": "Qwen/Qwen2.5-1.5B",
    "POLARIS-Project/Polaris-4B-Preview": "Qwen/Qwen3-4B",
    "POLARIS-Project/Polaris-7B-Preview": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
}
#: Endings of variants that keep the sizes of the model before them.
_VARIANTS = ("-Base", "-Instruct")
#: Rows of the token embedding where no tokenizer is at hand.
ASSUMED_VOCABULARY = 32_000


def known_shape(name: str) -> DecoderShape | None:
    """Return the sizes of a model of the Hub by its id, or None.

    Examples
    --------
    >>> known_shape("Qwen/Qwen3-0.6B-Base").layers
    28
    """
    for ending in _VARIANTS:
        name = name.removesuffix(ending)
    name = _SAME_SIZES.get(name, name)
    if name not in _SIZES:
        return None
    layers, hidden, intermediate, heads, key_value_heads, head_dim, vocabulary = _SIZES[name]
    return DecoderShape(layers, hidden, intermediate, heads, key_value_heads, head_dim, vocabulary)


def backbone_shape(backbone: config.Backbone) -> DecoderShape:
    """Return the sizes of a run's backbone.

    Raises
    ------
    InputError
        If it is neither a folder with ``config.json`` nor a known id, or that file lacks a size.
    """
    if isinstance(backbone, config.RandomBackbone):
        fields = backbone.architecture.model_dump()
        return decoder_shape(SimpleNamespace(**fields, vocab_size=_vocabulary(Path(backbone.tokenizer))))
    file = Path(backbone.path).expanduser() / "config.json"
    if file.is_file():
        try:
            return decoder_shape(SimpleNamespace(**json.loads(file.read_text(encoding="utf-8"))))
        except (AttributeError, TypeError, json.JSONDecodeError) as error:
            raise InputError(
                f"not the configuration of a decoder: {error}", where=str(file), todo="name another folder"
            ) from error
    shape = known_shape(backbone.path)
    if shape is None:
        raise InputError(
            f"the sizes of this backbone are not known here{did_you_mean(backbone.path, _SIZES)}",
            where=f"backbone.path: {backbone.path}",
            todo="download the model (its config.json is enough) and name its folder",
        )
    return shape


def _vocabulary(folder: Path) -> int:
    file = folder / "tokenizer.json"
    if not file.is_file():
        return ASSUMED_VOCABULARY
    content = json.loads(file.read_text(encoding="utf-8"))
    added = {token["content"] for token in content.get("added_tokens", [])}
    return len(set(content["model"]["vocab"]) | added)
