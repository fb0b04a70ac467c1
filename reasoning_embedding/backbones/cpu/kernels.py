"""Which twin of the elementwise functions computes."""

from __future__ import annotations

import torch

from .eager import Eager
from .native import Native, native_kernels

Kernels = Eager | Native


def kernels_for(dtype: torch.dtype) -> Kernels | None:
    """Return the functions for a compute dtype; None where the compiled ones cannot be built.

    Torch's own are for float64, to compare with: in the other dtypes they are slower than the stock layers.
    """
    return Eager(dtype) if dtype == torch.float64 else native_kernels(dtype)
