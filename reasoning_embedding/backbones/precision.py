"""Which dtype layers compute in: the one asked for, where the processor has instructions for it."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch

#: Said once where it applies.
SOFTWARE_BFLOAT16 = (
    "precision: this processor has no bfloat16 products (in software they take 10 to 30 times as long): "
    "layers compute in fp32"
)


@cache
def multiplies_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices about as fast as float32, or faster.

    oneDNN has such products for AVX-512 (bfloat16 instructions of its own or not), AVX-NE-CONVERT and Arm's; where
    it has none, torch multiplies in scalar loops.
    """
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(torch.backends.mkldnn.is_available() and supported is not None and supported())


def compute_dtype(precision: Literal["fp32", "bf16"], device: torch.device) -> torch.dtype | None:
    """Return what layers compute in where it is not their parameters' dtype; weights stay as they are.

    Parameters
    ----------
    precision : str
        ``training.precision``, or that of a stage.
    device : torch.device
        Where the layers lie.

    Returns
    -------
    torch.dtype or None
        bfloat16 for ``bf16``; None for ``fp32``, and on a CPU or GPU without bfloat16 products, where float32 is
        closer to what is meant and many times faster.
    """
    if precision == "fp32":
        return None
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)  # before Ampere: emulated
    else:
        has = device.type != "cpu" or multiplies_bfloat16()
    return torch.bfloat16 if has else None
