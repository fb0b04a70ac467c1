"""What a stock model is made of: its decoder layers, their attention, and linear layers as torch made them."""

from __future__ import annotations

from typing import Any, TypeGuard

from torch import Tensor, nn

from reasoning_embedding.errors import ContractError

#: Name under which transformers knows attention over texts laid end to end (:mod:`.attention`).
PACKED = "packed"


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the list of decoder layers: the longest ``ModuleList`` of the model.

    Raises
    ------
    ContractError
        If the model holds no list of layers.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ContractError(
            "no list of decoder layers", where=type(model).__name__, todo="use a decoder backbone"
        )
    return max(lists, key=len)


def is_causal(config: Any) -> bool:
    """Whether the layers of a model's configuration see nothing of what comes after a token.

    ``is_causal: false`` makes any stock decoder bidirectional; Gemma has a switch of its own,
    ``use_bidirectional_attention``, which EmbeddingGemma sets.
    """
    return bool(getattr(config, "is_causal", True)) and not _both_ways_by_itself(config)


def set_causal(config: Any, causal: bool) -> None:
    """Make the attention of a configuration causal or bidirectional, before a model is built of it."""
    if causal and _both_ways_by_itself(config):
        config.use_bidirectional_attention = False
        if getattr(config, "sliding_window", None):  # kept halved while attention looks both ways
            config.sliding_window = (config.sliding_window - 1) * 2
    if causal or is_causal(config):
        config.is_causal = causal


def window_of(config: Any, sliding_window: int | None) -> int | None:
    """Return a layer's window in tokens: causal, a distance below it is seen; bidirectional, one up to it."""
    window = int(sliding_window) if sliding_window else None
    # Gemma's own switch sees distances below the window; `is_causal: false` those up to it, and goes first.
    if window and _both_ways_by_itself(config) and getattr(config, "is_causal", True):
        return window - 1
    return window


def _both_ways_by_itself(config: Any) -> bool:
    return getattr(config, "use_bidirectional_attention", None) is True


def attends_to_whole_texts(config: Any) -> bool:
    """Whether layers of a model's configuration attend over packs, from every token of a text to all of its tokens."""
    return config._attn_implementation == PACKED and not is_causal(config)


def is_plain_linear(module: nn.Module | None) -> TypeGuard[nn.Linear]:
    """Whether a module is torch's linear layer, with its own forward, and all of its weight on a CPU."""
    if type(module) is not nn.Linear or "forward" in vars(module):  # hooks of others stand there
        return False
    weight = module.weight.detach()
    complete = type(weight) is Tensor and weight.shape == (module.out_features, module.in_features)
    return complete and weight.device.type == "cpu"
