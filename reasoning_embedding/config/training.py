"""The recipe: loss, optimisation, checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .analysis import Tracking
from .backbone import Backbone, Lora, Pooling
from .base import Fraction, Name, NonNegative, Positive, PositiveFloat, Section, conflict
from .data import Data
from .evaluation import TrainingEvaluation


class InfoNCE(Section):
    """Query -> document InfoNCE over hard and in-batch negatives, cosine similarity."""

    kind: Literal["infonce"] = "infonce"
    temperature: PositiveFloat = 0.02
    tile_rows: Positive = 1024
    """Queries scored at a time: the loss holds no tensor larger than this times the candidates."""


class Training(Section):
    """How the step is taken and how many there are."""

    batch_size: Positive = 64
    """Queries a step over all ranks."""
    epochs: PositiveFloat | None = None
    steps: Positive | None = None
    """Optimiser steps; takes the place of ``epochs`` (one of the two; neither: one epoch)."""
    learning_rate: PositiveFloat = 2e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    warmup_ratio: Fraction = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    final_learning_rate: Fraction = 0.0
    """Where cosine and linear end, as a fraction of ``learning_rate``."""
    max_grad_norm: PositiveFloat | None = 1.0
    precision: Literal["fp32", "bf16"] = "bf16"
    pack_tokens: Positive = 16384
    """Most tokens in one forward; a longer single text is a pack of its own."""
    activation_checkpointing: bool = False
    """Recompute each layer in the backward pass: the least memory for one pack, a third more work."""
    store_tokens: NonNegative | None = None
    """Tokens a rank whose activations are kept; the rest of the batch is embedded again for its gradient
    (GradCache), which makes memory independent of the batch. Absent: all; 0: none."""
    lora: Lora | None = None
    threads: Positive | None = None
    """CPU threads a rank; absent: torch's own choice."""

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if self.epochs is not None and self.steps is not None:
            raise conflict("give epochs or steps, not both", "steps")
        return self

    @model_validator(mode="after")
    def _recompute_once(self) -> Training:
        if self.activation_checkpointing and self.store_tokens is not None:
            raise conflict(
                "activation_checkpointing and store_tokens each cost a second forward; use one",
                "store_tokens",
            )
        return self


class Checkpoints(Section):
    """Which steps are kept as models anyone can load, and how often the run can be resumed."""

    every: Positive = 200
    log_spaced: bool = True
    """Also keep steps 1, 2, 4, 8, ... below ``every``."""
    keep_states: Positive = 2
    """Optimizer states kept for resuming (the newest ones); models are never deleted."""


class Logging(Section):
    """What is written while training."""

    every: Positive = 1
    tensorboard: bool = True


class Recipe(Section):
    """Everything of a run except its backbone, seed and name: what a paired experiment holds fixed."""

    data: Data
    pooling: Pooling = Pooling()
    loss: InfoNCE = InfoNCE()
    training: Training = Training()
    checkpoints: Checkpoints = Checkpoints()
    logging: Logging = Logging()
    evaluation: TrainingEvaluation | None = None
    hrsa: Tracking | None = None
    """How the representation moves, measured after the last step from the saved checkpoints."""


class RunConfig(Recipe):
    """One training run."""

    kind: Literal["run"] = "run"
    name: Name
    output_dir: str = "runs"
    seed: NonNegative = 0
    backbone: Backbone
