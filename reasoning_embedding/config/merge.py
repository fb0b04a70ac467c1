"""Merging embedders: which models, by which method, once or along a path."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .analysis import EverySteps, Measuring
from .base import Fraction, Name, NonNegative, Positive, PositiveFloat, Section, Text, conflict
from .evaluation import Evaluation


class RunCheckpoints(Section):
    """Checkpoints of one run, in order."""

    run: Text
    """The run's folder."""
    steps: Literal["all"] | list[NonNegative] | EverySteps = "all"
    """Which of the saved steps: all, a list, or multiples of a number."""
    last: Positive | None = None
    """Only the last so many of them."""


class TensorValue(Section):
    """A value for the tensors whose name contains ``filter``; without one, for all that are left."""

    filter: Text | None = None
    """Part of the names of tensors, such as ``mlp``."""
    value: Fraction | Annotated[list[Fraction], Field(min_length=1)]
    """A number, or a gradient over the layers."""


class Slerp(Section):
    """Spherical interpolation of two models, tensor by tensor, from the first (t = 0) to the second (t = 1)."""

    kind: Literal["slerp"]
    t: Fraction | Annotated[list[Fraction | TensorValue], Field(min_length=1)] = 0.5
    """A number; a gradient over the layers, interpolated; or ``[{filter, value}, ...]``, the first that fits counts.
    Embeddings, the final norm and the head take the first number of a gradient."""

    @model_validator(mode="after")
    def _every_tensor_has_a_value(self) -> Slerp:
        if not isinstance(self.t, list):
            return self
        values = [item for item in self.t if isinstance(item, TensorValue)]
        if values and len(values) < len(self.t):
            raise conflict("a list of numbers or of {filter, value}, not of both", "t")
        if values and values[-1].filter is not None:
            raise conflict(
                "tensors that no filter fits have no t; end the list with {value: ...}", "t", len(values) - 1
            )
        for index, item in enumerate(values[:-1]):
            if item.filter is None:
                raise conflict("what follows an entry without a filter counts nowhere", "t", index + 1)
        return self


class Linear(Section):
    """Weighted mean of the weights: a soup."""

    kind: Literal["linear"]
    weights: Literal["uniform", "linear", "ema"] | Annotated[list[float], Field(min_length=2)] = "uniform"
    """One number a model, divided by their sum; or by place in the list: ``linear`` 1, 2, 3, ...; ``ema`` the
    exponential moving average that starts at the first model."""
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Of ``ema``."""

    @model_validator(mode="after")
    def _weights_have_a_sum(self) -> Linear:
        if isinstance(self.weights, list) and abs(sum(self.weights)) < 1e-8:
            raise conflict("the weights add up to 0, so there is no mean", "weights")
        if "decay" in self.model_fields_set and self.weights != "ema":
            raise conflict("decay belongs to weights: ema", "decay")
        return self


class _TaskVectors(Section):
    """Differences of models from a base, combined and added to it."""

    base: Text
    """What the models were fine-tuned from, as an embedder: step 0 of a run."""
    weights: Annotated[list[float], Field(min_length=1)] | None = None
    """One number a model; absent: 1 each."""
    scale: float = 1.0
    """Factor of the combined difference (lambda)."""


class TaskArithmetic(_TaskVectors):
    """Sum of the task vectors (Ilharco et al. 2023)."""

    kind: Literal["task-arithmetic"]
    normalize: bool = False
    """Divide by the sum of the weights."""


class Ties(_TaskVectors):
    """Trim each task vector to its largest entries, elect a sign an entry, average what agrees (Yadav et al. 2023)."""

    kind: Literal["ties"]
    density: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the entries that is kept, the largest."""
    normalize: bool = True
    """Divide by the sum of the weights that agree."""


class Dare(_TaskVectors):
    """Drop entries of the task vectors at random and rescale the rest (Yu et al. 2024)."""

    kind: Literal["dare"]
    density: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the entries that is kept, drawn."""
    signs: Literal["sum", "elect"] = "sum"
    """``sum`` adds what is left (DARE-linear), ``elect`` averages what agrees in sign as TIES does (DARE-TIES)."""
    normalize: bool = False
    """Divide by the sum of the weights."""
    seed: NonNegative = 0
    """Of what is dropped."""


class ModelStock(Section):
    """Move from the base toward the mean as far as the angles between the models say (Jang et al. 2024)."""

    kind: Literal["model-stock"]
    base: Text
    """What the models were fine-tuned from, as an embedder: step 0 of a run."""
    rows: bool = False
    """An angle for each row of a matrix instead of one for the tensor."""


class Karcher(Section):
    """Mean on the sphere: SLERP for any number of models."""

    kind: Literal["karcher"]
    iterations: Positive = 10
    """At most so many."""
    tolerance: PositiveFloat = 1e-5
    """Stop when the mean moves by less, in radians."""


PathMethod = Annotated[Slerp | Linear, Field(discriminator="kind")]
MergeMethod = Annotated[
    Slerp | Linear | TaskArithmetic | Ties | Dare | ModelStock | Karcher, Field(discriminator="kind")
]


class MergePath(Section):
    """The way from the first model to the second, in steps."""

    t: list[Fraction] = Field(default=[index / 10 for index in range(11)], min_length=2)
    """Ascending."""
    beside: list[PathMethod] = Field(default=[])
    """Other ways between the same models, shown in the same plots."""

    @model_validator(mode="after")
    def _t_ascends(self) -> MergePath:
        for index, (before, after) in enumerate(zip(self.t, self.t[1:], strict=False)):
            if after <= before:
                raise conflict(f"{after:g} does not ascend from {before:g}", "t", index + 1)
        return self


class MergeConfig(Section):
    """One merge of embedders, or a path of them between two."""

    kind: Literal["merge"]
    name: Name
    """Names the folder below ``output_dir``."""
    output_dir: str = "runs"
    """Where merges lie."""
    models: Annotated[list[Text], Field(min_length=1)] | RunCheckpoints
    """Folders of embedders, or ``RUN@STEP``: a run's folder and a step, ``first``, ``last`` or ``best``. A folder of a
    LoRA adapter is merged into its base first. Or the checkpoints of one run."""
    method: MergeMethod
    """How weights become one."""
    path: MergePath | None = None
    """Merge at every ``t`` of a path instead of once."""
    evaluation: Evaluation | None = None
    """Tasks that every merge is scored on."""
    analysis: Measuring | None = None
    """Probe set on which every merge is held against the models it is made of."""

    @model_validator(mode="after")
    def _method_fits_the_models(self) -> MergeConfig:
        count = len(self.models) if isinstance(self.models, list) else None
        if isinstance(self.method, Slerp) and count != 2:
            found = "a trajectory" if count is None else count
            raise conflict(f"slerp takes exactly two models; given: {found}", "models")
        if count == 1 and not isinstance(self.method, _TaskVectors):
            raise conflict(f"{self.method.kind} takes at least two models; given: 1", "models")
        weights = getattr(self.method, "weights", None)
        if isinstance(weights, list) and count is not None and len(weights) != count:
            raise conflict(f"{len(weights)} weights for {count} models", "method", "weights")
        return self

    @model_validator(mode="after")
    def _path_has_two_ends(self) -> MergeConfig:
        if self.path is None:
            return self
        if not isinstance(self.method, Slerp | Linear):
            raise conflict("a path is made by slerp or linear", "method", "kind")
        if not isinstance(self.models, list) or len(self.models) != 2:
            raise conflict("a path leads from one model to another: it takes exactly two", "models")
        methods = [self.method, *self.path.beside]
        for index, method in enumerate(methods):
            where = ("method",) if index == 0 else ("path", "beside", index - 1)
            if own := method.model_fields_set - {"kind"}:
                raise conflict("along a path t decides; leave this out", *where, sorted(own)[0])
            if method.kind in [other.kind for other in methods[:index]]:
                raise conflict(f"{method.kind} stands twice", *where, "kind")
        return self

    @model_validator(mode="after")
    def _a_merge_has_no_steps(self) -> MergeConfig:
        for key in ("steps", "baselines"):
            if self.evaluation is not None and key in self.evaluation.model_fields_set:
                raise conflict(f"{key} belong to the evaluation of runs; leave this out", "evaluation", key)
        return self
