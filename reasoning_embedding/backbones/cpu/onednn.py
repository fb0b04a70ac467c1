"""oneDNN's matrix products with weights in its own blocks, by the private names that torch gives them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def reorders_weights() -> bool:
    """Whether weights may be reordered now: torch has oneDNN, and no gradient is wanted."""
    return torch.backends.mkldnn.is_available() and not torch.is_grad_enabled()


def reordered(weight: Tensor, rows: int) -> Tensor:
    """Return a copy of an (o, i) weight in the blocks that about `rows` rows are multiplied by; only for :func:`linear`."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, rows)


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, then: Literal["none", "swish"] = "none"
) -> Tensor:
    """``x W' + b``, its activation applied while the product is in cache."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], "")


def linear_with(
    x: Tensor, weight: Tensor, other: Tensor, then: Literal["add", "mul"], bias: Tensor | None = None
) -> Tensor:
    """``x W' + b``, added to `other` or multiplied by it."""
    return torch.ops.mkldnn._linear_pointwise.binary(x, other, weight, bias, then)
