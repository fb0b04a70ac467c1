"""Finding the decoder layers of a stock model."""

from __future__ import annotations

from torch import nn

from reasoning_embedding.errors import ContractError


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
