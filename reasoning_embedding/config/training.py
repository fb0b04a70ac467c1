"""The recipe: optimisation, checkpoints, and the sections that make it up."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .analysis import Tracking
from .backbone import Backbone, Lora
from .base import Decay, Fraction, Name, NonNegative, Positive, PositiveFloat, Section, conflict
from .data import Data
from .evaluation import HoldoutTask, TrainingEvaluation
from .loss import InfoNCE
from .optimizer import AdamW, Optimizer
from .readout import Pooling, ReadoutSettings


class Training(Section):
    """How the step is taken and how many there are."""

    batch_size: Positive = 64
    """Queries a step over all ranks."""
    epochs: PositiveFloat | None = None
    """Times that the data are gone through; neither this nor ``steps``: once."""
    steps: Positive | None = None
    """Optimiser steps; takes the place of ``epochs`` (one of the two; neither: one epoch)."""
    learning_rate: PositiveFloat = 2e-5
    """Its peak, after the warm-up."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Pull of matrices toward 0, times the learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay rates of AdamW's two moments."""
    warmup_ratio: Fraction = 0.03
    """Share of the steps in which the learning rate rises."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How it falls after the warm-up."""
    final_learning_rate: Fraction | None = None
    """Where cosine and linear end with the last step, as a fraction of ``learning_rate``; absent: they reach 0 one step
    after the last, which so still teaches."""
    restarts: list[Positive] = Field(default=[])
    """Steps after which the schedule begins again, with its warm-up (SGDR). A run of N steps is made longer by more
    ``steps`` and ``restarts: [N]``."""
    max_grad_norm: PositiveFloat | None = 1.0
    """Longer gradients are scaled down to this; null: never."""
    optimizer: Optimizer = AdamW()
    """What turns a gradient into an update."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """What layers compute in; weights, moments, pooling and loss stay in fp32. On a CPU without bf16 products
    (before AVX-512) bf16 would be many times slower, so layers compute in fp32 there."""
    pack_tokens: Positive = 16384
    """Most tokens in one forward; no text may be longer."""
    activation_checkpointing: Literal[False, True, "selective", "offload"] = False
    """Recompute layers in the backward pass. ``true``: whole layers, the least memory for one pack and a third
    more work; ``selective``: all but matrix products and attention, 0.4 of the memory and little work;
    ``offload``: as true, and the inputs of the layers wait in host memory (for a GPU)."""
    memory: Literal["auto", "store", "hybrid", "replay"] = "auto"
    """What of the batch is kept for the backward pass; the gradient is the same. ``store``: all; ``hybrid``:
    ``store_tokens`` of a rank, the rest is embedded again (GradCache); ``replay``: nothing, so memory does
    not grow with the batch; ``auto``: as much as fits in memory, measured at the start."""
    store_tokens: NonNegative | None = None
    """Tokens a rank whose activations are kept, for ``hybrid``; given with ``auto`` it is taken as it is
    (0: none)."""
    memory_gib: PositiveFloat | None = None
    """Memory a rank may use in all, for ``auto``; absent: what is free on its device."""
    compile: bool = False
    """Compile each layer with torch.compile: fewer kernels on a GPU, a loss on a CPU."""
    fused_layers: bool = True
    """Run each layer as one function on a CPU, where ranks hold the model whole: Llama, Mistral, Qwen2 and Qwen3
    without adapters or dropout. A C++ compiler builds its kernels once; without one nothing changes."""
    lora: Lora | None = None
    """Train adapters instead of all weights; absent: all weights."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """What it computes on; ``auto``: a CUDA GPU where one answers, else the CPU."""
    threads: Positive | None = None
    """CPU threads a rank; absent: torch's own choice."""
    ranks: Positive | None = None
    """Ranks that the run must be launched with; absent: any number, with the same result."""
    timeout_minutes: PositiveFloat = 10.0
    """How long ranks wait for one that is gone before the job ends."""

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if self.epochs is not None and self.steps is not None:
            raise conflict("give epochs or steps, not both", "steps")
        return self

    @model_validator(mode="after")
    def _restarts_in_order(self) -> Training:
        if self.restarts != sorted(set(self.restarts)):
            raise conflict("restarts must rise from one to the next", "restarts")
        if self.restarts and self.steps is not None and self.restarts[-1] >= self.steps:
            raise conflict(f"the last restart must come before the last of {self.steps} steps", "restarts")
        return self

    @model_validator(mode="after")
    def _recompute_once(self) -> Training:
        recomputed = self.activation_checkpointing in (True, "offload")
        if recomputed and (self.store_tokens is not None or self.memory in ("hybrid", "replay")):
            key = "memory" if self.store_tokens is None else "store_tokens"
            raise conflict(
                f"activation_checkpointing and {key} each cost a second forward; use one (or checkpointing "
                "'selective')",
                key,
            )
        return self

    @model_validator(mode="after")
    def _one_memory_mode(self) -> Training:
        if self.memory == "hybrid" and not self.store_tokens:
            raise conflict("hybrid needs store_tokens, the tokens to keep; 'auto' finds them", "memory")
        if self.memory == "store" and self.store_tokens is not None:
            raise conflict("memory 'store' keeps every token; leave store_tokens out", "store_tokens")
        if self.memory == "replay" and self.store_tokens:
            raise conflict("memory 'replay' keeps no token; leave store_tokens out", "store_tokens")
        if self.memory_gib is not None and (self.memory != "auto" or self.store_tokens is not None):
            raise conflict("memory_gib is the budget of memory 'auto' without store_tokens", "memory_gib")
        return self


class Checkpoints(Section):
    """Which steps are kept as models anyone can load, and how often the run can be resumed."""

    every: Positive = 200
    """Steps between two that are kept as models; step 0 and the last always are."""
    log_spaced: bool = True
    """Also keep steps 1, 2, 4, 8, ... below ``every``."""
    keep_states: Positive = 2
    """Optimizer states kept for resuming (the newest ones); models are never deleted."""


class Logging(Section):
    """What is written while training."""

    every: Positive = 1
    """Steps between two lines of ``metrics.jsonl``; steps with scores and the last one always have theirs."""
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = Field(default=["tensorboard"])
    """Where metrics go beside ``metrics.jsonl``. wandb goes offline by itself where it finds no key, and no
    tracker ever holds up the training."""
    tensorboard: bool = True
    """``false`` leaves TensorBoard out of ``trackers``."""
    project: Name = "reasoning-embedding"
    """Where wandb and trackio file the run."""
    group: Name | None = None
    """What its runs are compared in; a sweep and an experiment give their own name."""
    peak_tflops: PositiveFloat | None = None
    """Peak rate of a rank's device, 10^12 operations a second, that the model FLOP utilisation (MFU) is taken
    of; absent: the published bf16 rate of a known GPU, and no MFU on others."""


class Recipe(Section):
    """Everything of a run except its backbone, seed and name: what a paired experiment holds fixed."""

    data: Data
    """What is learnt from, and how texts become tokens."""
    readout: ReadoutSettings = ReadoutSettings()
    """How hidden states become one vector; absent parts: the backbone's own, else bidirectional mean pooling."""
    loss: InfoNCE = InfoNCE()
    """What is minimised."""
    training: Training = Training()
    """How the step is taken and how many there are."""
    checkpoints: Checkpoints = Checkpoints()
    """Which steps are kept."""
    logging: Logging = Logging()
    """Where numbers go."""
    evaluation: TrainingEvaluation | None = None
    """Scores while training, which also name the best step; absent: none."""
    hrsa: Tracking | None = None
    """How the representation moves, measured after the last step from the saved checkpoints."""

    pooling: Pooling | None = Field(default=None, exclude=True)
    """The older form of ``readout``: ``{kind: mean, include_prompt}``."""

    @model_validator(mode="after")
    def _one_readout(self) -> Self:
        if self.pooling is None:
            return self
        if self.readout != ReadoutSettings():
            raise conflict("give readout alone; pooling is its older form", "pooling")
        return self.model_copy(update={"readout": self.pooling.as_readout(), "pooling": None})

    @model_validator(mode="after")
    def _held_out_rows_are_scored(self) -> Self:
        tasks = self.evaluation.tasks if self.evaluation is not None else []
        asked = any(isinstance(task, HoldoutTask) for task in tasks)
        if self.data.holdout is None and asked:
            raise conflict(
                "nothing to score on: name tasks, or hold rows out by data.holdout, such as .02",
                "evaluation",
                "tasks",
            )
        if self.data.holdout is None or asked:
            return self
        section = self.evaluation or TrainingEvaluation()
        section = section.model_copy(update={"tasks": [*tasks, HoldoutTask()]})
        return self.model_copy(update={"evaluation": section})


class RunConfig(Recipe):
    """One training run."""

    kind: Literal["run"] = "run"
    name: Name
    """Names the folder below ``output_dir``."""
    output_dir: str = "runs"
    """Where runs lie."""
    seed: NonNegative = 0
    """Of the order of rows, the negatives drawn and dropout."""
    backbone: Backbone
    """The model that becomes an embedder."""
