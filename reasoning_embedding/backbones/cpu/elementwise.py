"""What stands between the matrix products of a layer: which of its two twins computes."""

from __future__ import annotations

import torch

from .elementwise_native import Native, native_kernels
from .elementwise_torch import Eager

Kernels = Eager | Native


def kernels_for(dtype: torch.dtype) -> Kernels | None:
    """Return the functions for a compute dtype; None where the compiled ones cannot be built.

    Torch's own are for float64, to compare with: in the other dtypes they are slower than the stock layers.
    """
    return Eager(dtype) if dtype == torch.float64 else native_kernels(dtype)
