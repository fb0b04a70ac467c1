"""Sizes of a backbone, what a step must compute with them, and where they are found without a network.

Pure Python, so that a plan for a thousand GPUs needs neither torch nor a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import mul
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from reasoning_embedding import config
from reasoning_embedding.config.reading.suggestions import did_you_mean
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json

#: Architectures whose MLP has no gate.
_TWO_MATRICES = {
    "gpt_neox",
    "gpt2",
    "phi",
    "starcoder2",
    "opt",
    "bloom",
    "falcon",
    "nemotron",
    "arcee",
    "jais2",
}


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


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a decoder that its cost follows from.

    Attributes
    ----------
    layers, hidden, intermediate : int
        Decoder layers, width of the residual stream, width of the MLP.
    heads, key_value_heads, head_dim : int
        Attention heads, those that keys and values share, and the width of each.
    vocabulary : int
        Rows of the token embedding.
    gated : bool
        Whether the MLP has three matrices (SwiGLU, GeGLU) or two.
    readout_heads : int
        Parameters of linear heads after pooling; they are trained beside adapters, too.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_dim: int
    vocabulary: int
    gated: bool = True
    readout_heads: int = 0

    @property
    def widths(self) -> dict[str, int]:
        """Widths of a layer's tensors: residual stream, all queries, all keys (or values), MLP."""
        return {
            "hidden": self.hidden,
            "query": self.heads * self.head_dim,
            "key_value": self.key_value_heads * self.head_dim,
            "intermediate": self.intermediate,
        }

    @property
    def layer_parameters(self) -> int:
        """Matrix parameters of one layer."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.key_value_heads)
        return attention + (3 if self.gated else 2) * self.hidden * self.intermediate

    @property
    def body_parameters(self) -> int:
        """Matrix parameters of all layers: what every token is multiplied by."""
        return self.layers * self.layer_parameters

    @property
    def parameters(self) -> int:
        """Parameters of the encoder: body, token embedding and heads, without LM head (vectors are left out)."""
        return self.body_parameters + self.vocabulary * self.hidden + self.readout_heads


def training_flops(shape: DecoderShape, tokens: float, squares: float, *, full: bool = True) -> float:
    """Return the useful floating-point operations of a forward and a backward pass over some texts.

    Parameters
    ----------
    shape : DecoderShape
        The encoder.
    tokens : float
        Tokens of all texts, padding not counted.
    squares : float
        Sum over texts of their squared tokens. Over `tokens` it is the length-weighted mean length: the
        mean length of the text that a token finds itself in.
    full : bool
        Whether all matrices are trained; under LoRA the frozen ones need no weight gradient.

    Returns
    -------
    float
        6 P tokens + 12 L H D squares for a body of P matrix parameters, L layers of H heads of width D; 4 P
        instead of 6 P where only adapters are trained.

    Notes
    -----
    A multiplication and an addition count two. A matrix is used once forward and twice backward (for its
    input and for itself). Bidirectional attention over a text of t tokens costs 2 t^2 D a head for the
    scores and as much for the values, and twice that backward (PaLM, arXiv 2204.02311, appendix B). Not
    counted: the token embedding (a look-up), an LM head (there is none), the loss, elementwise work, and
    whatever is computed a second time (checkpointing, replay), which is not useful work. A sliding window
    counts as full attention.
    """
    linear = (6 if full else 4) * shape.body_parameters * tokens
    return linear + 12 * shape.layers * shape.heads * shape.head_dim * squares


def decoder_shape(settings: Any) -> DecoderShape:
    """Return the sizes in a transformers configuration."""
    heads = int(settings.num_attention_heads)
    hidden = int(settings.hidden_size)
    return DecoderShape(
        layers=int(settings.num_hidden_layers),
        hidden=hidden,
        intermediate=int(settings.intermediate_size),
        heads=heads,
        key_value_heads=int(getattr(settings, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(settings, "head_dim", None) or hidden // heads),
        vocabulary=int(settings.vocab_size),
        gated=settings.model_type not in _TWO_MATRICES,
    )


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
            return decoder_shape(SimpleNamespace(**read_json(file, todo="name another folder")))
        except (AttributeError, TypeError) as error:
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


def with_readout(
    shape: DecoderShape, backbone: config.Backbone, readout: config.ReadoutSettings
) -> DecoderShape:
    """Return the sizes with the heads that a run trains: its own, else those of a local embedder."""
    if readout.heads is not None:
        widths = [shape.hidden, *(head.out_features for head in readout.heads)]
        biases = sum(head.out_features for head in readout.heads if head.bias)
        return replace(shape, readout_heads=sum(map(mul, widths[:-1], widths[1:])) + biases)
    if isinstance(backbone, config.RandomBackbone) or not Path(backbone.path).expanduser().is_dir():
        return shape
    folder = Path(backbone.path).expanduser()
    heads = [read_json(file) for file in sorted(folder.glob("*_Dense/config.json"))]
    sizes = [head["out_features"] * (head["in_features"] + head.get("bias", True)) for head in heads]
    return replace(shape, readout_heads=sum(sizes))


def _vocabulary(folder: Path) -> int:
    file = folder / "tokenizer.json"
    if not file.is_file():
        return ASSUMED_VOCABULARY
    content = read_json(file)
    added = {token["content"] for token in content.get("added_tokens", [])}
    return len(set(content["model"]["vocab"]) | added)
