"""Which optimizer takes the step; the learning rate and its schedule are the recipe's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Fraction, Positive, Section


class AdamW(Section):
    """AdamW in one fused kernel (arXiv 1711.05101): 8 bytes of state a parameter."""

    kind: Literal["adamw"] = "adamw"


class AdamW8bit(Section):
    """AdamW with moments in 8 bits (arXiv 2110.02861), from bitsandbytes: 2 bytes of state a parameter."""

    kind: Literal["adamw8bit"] = "adamw8bit"


class Muon(Section):
    """Orthogonalised momentum for the matrices of the body; AdamW for embeddings and vectors.

    The update of a matrix is scaled to the size of AdamW's (arXiv 2502.16982), so one ``learning_rate``
    and one ``weight_decay`` serve both. 4 bytes of state a parameter of the body.
    """

    kind: Literal["muon"] = "muon"
    momentum: Fraction = 0.95
    """Share of the last update's direction that is kept."""
    iterations: Positive = 5
    """Newton-Schulz iterations an update."""


Optimizer = Annotated[AdamW | AdamW8bit | Muon, Field(discriminator="kind")]
