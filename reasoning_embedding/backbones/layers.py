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


def attends_to_whole_texts(config: Any) -> bool:
    """Whether layers of a model's configuration attend over packs, from every token of a text to all of its tokens."""
    return config._attn_implementation == PACKED and not getattr(config, "is_causal", True)


def is_plain_linear(module: nn.Module | None) -> TypeGuard[nn.Linear]:
    """Whether a module is torch's linear layer, with its own forward, and all of its weight on a CPU."""
    if type(module) is not nn.Linear or "forward" in vars(module):  # hooks of others stand there
        return False
    weight = module.weight.detach()
    complete = type(weight) is Tensor and weight.shape == (module.out_features, module.in_features)
    return complete and weight.device.type == "cpu"
