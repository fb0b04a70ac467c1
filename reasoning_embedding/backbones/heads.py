"""Linear maps between pooling and the unit vector: sentence-transformers' Dense modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reasoning_embedding.errors import ContractError, InputError

from .readout import ACTIVATIONS, Head, head_weights


class DenseHead(nn.Module):
    """One linear map and its activation, computed in the precision of its weights whatever autocast says.

    Parameters
    ----------
    head : Head
        Its shape and activation.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.linear = nn.Linear(head.in_features, head.out_features, bias=head.bias)
        self.activation = _activation(head.activation)

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, in) to (n, out)."""
        with torch.autocast(vectors.device.type, enabled=False):
            return self.activation(self.linear(vectors.to(self.linear.weight.dtype)))


def make_heads(heads: Sequence[Head], width: int) -> nn.Sequential:
    """Build heads with random weights, drawn from torch's generator on the CPU.

    Parameters
    ----------
    heads : sequence of Head
        In their order.
    width : int
        Length of the pooled vector.

    Raises
    ------
    InputError
        If a head does not take what comes before it.
    """
    for number, head in enumerate(heads, 1):
        if head.in_features != width:
            raise InputError(
                f"head {number} takes vectors of {head.in_features}, but {width} come to it",
                where="the embedder's heads",
                todo="save or download the model again",
            )
        width = head.out_features
    # A Sequential, not a list: decoder layers are found as the longest list of modules.
    return nn.Sequential(*map(DenseHead, heads))


def load_heads(
    heads: nn.Sequential, path: str, folders: Sequence[str], *, revision: str | None = None
) -> None:
    """Put the saved weights of a model's heads into `heads`, in place.

    Raises
    ------
    InputError
        If weights are missing, or are not of the shape that the head's config says.
    ContractError
        If they are no safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for head, folder in zip(heads, folders, strict=True):
        file = head_weights(path, folder, revision=revision)
        try:
            head.load_state_dict({key: value.float() for key, value in load_file(file).items()})
        except (OSError, SafetensorError, RuntimeError) as error:
            raise InputError(
                f"the weights of this head cannot be read ({str(error).splitlines()[0][:160]})",
                where=f"{path}/{folder}",
                todo="save or download the model again",
            ) from error


def activation_name(word: str) -> str:
    """Return the dotted name of an activation's class, as sentence-transformers writes it."""
    return ACTIVATIONS.get(word, word)


def _activation(word: str) -> nn.Module:
    name = activation_name(word).rpartition(".")[2]
    kind: Any = getattr(nn, name, None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ContractError(
            f"there is no activation {word!r} in torch.nn",
            where="a head",
            todo=f"one of {', '.join(ACTIVATIONS)}",
        )
    try:
        return kind()
    except TypeError as error:
        raise ContractError(f"the activation {word!r} needs arguments", where="a head") from error
