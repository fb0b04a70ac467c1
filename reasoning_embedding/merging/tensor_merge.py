"""What a merge's configuration means for each tensor, in mergekit's words."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reasoning_embedding import config
from reasoning_embedding.config.reading.suggestions import did_you_mean
from reasoning_embedding.errors import InputError, SetupError

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


class TensorMerge:
    """A method, ready to merge tensor after tensor.

    Parameters
    ----------
    method : config.MergeMethod
        As configured.
    count : int
        Models, without the base.
    layers : int
        Decoder layers of the models.
    names : sequence of str
        Their tensors.

    Raises
    ------
    InputError
        If there are too few models, another number of weights than models, or a filter that fits no tensor.
    SetupError
        If mergekit is not installed.
    """

    def __init__(self, method: config.MergeMethod, count: int, layers: int, names: Sequence[str]) -> None:
        if importlib.util.find_spec("mergekit") is None:
            raise SetupError("merging needs mergekit", todo='pip install "reasoning-embedding[merge]"')
        self.method = method
        self._layers = layers
        weights = getattr(method, "weights", None)
        if isinstance(weights, list) and len(weights) != count:
            raise InputError(f"{len(weights)} weights for {count} models", where="method.weights")
        if count < 2 and not hasattr(method, "scale"):
            raise InputError(f"{method.kind} takes at least two models; given: {count}", where="models")
        if isinstance(method, config.Slerp):
            _check_filters(method, names)
        self._name, self._shared = _in_mergekit(method, count)

    def merge(self, name: str, tensors: Sequence[Tensor]) -> Tensor:
        """Merge one tensor, in float32 or better, and return it in the dtype of the first.

        Parameters
        ----------
        name : str
            Of the tensor: it decides ``t``, and what DARE draws.
        tensors : sequence of Tensor
            One a model; the base first where the method has one.

        Raises
        ------
        InputError
            If integers or booleans differ: they cannot be merged.
        """
        from mergekit.merge_methods import merge_tensors

        first = tensors[0]
        if not first.is_floating_point():
            if any(not torch.equal(first, other) for other in tensors[1:]):
                raise InputError(
                    f"{name} holds integers that differ between the models", todo="merge models that share it"
                )
            return first
        parameters = self.parameters(name)
        dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(self._seed(name))
            return merge_tensors(
                tensors,
                self._name,
                parameters=parameters,
                base_index=None if self._name in ("linear", "karcher") else 0,
                dtype=dtype,
                out_dtype=first.dtype,
            )

    def parameters(self, name: str) -> dict[str, Any]:
        """Return what mergekit is told for a tensor."""
        if not isinstance(self.method, config.Slerp):
            return self._shared
        return {"t": self._t(self.method, name)}

    def describe(self) -> dict[str, Any]:
        """Return method and parameters as provenance and card name them."""
        settings = self.method.model_dump(mode="json", exclude={"kind", "base", "decay"})
        if isinstance(self.method, config.Linear) and isinstance(self.method.weights, str):
            rule = f"ema {self.method.decay:g}" if self.method.weights == "ema" else self.method.weights
            settings = {"rule": rule, "weights": self._shared["weight"]}
        return {"method": self.method.kind, "parameters": settings}

    def _t(self, method: config.Slerp, name: str) -> float:
        """Position of a tensor between the models; mergekit's rules for gradients and filters."""
        from mergekit.config import ConditionalParameter, evaluate_setting

        setting: Any = method.t
        if isinstance(setting, list):
            setting = [
                ConditionalParameter(value=item.value, filter=item.filter)
                if isinstance(item, config.TensorValue)
                else item
                for item in setting
            ]
        return float(evaluate_setting(name, setting, self._place(name), validate=float))

    def _place(self, name: str) -> float:
        """Depth of a tensor, 0 to 1; 0 for those of no layer, so that they take a gradient's first number."""
        match = _LAYER.search(name)
        if match is None:
            return 0.0
        return int(match[1]) / (self._layers - 1) if self._layers > 1 else 1.0

    def _seed(self, name: str) -> int:
        """Seed of a tensor's draws: its own, so that they depend neither on the others nor on their order."""
        seed = self.method.seed if isinstance(self.method, config.Dare) else 0
        return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:7])


def at(method: config.Slerp | config.Linear, t: float) -> config.Slerp | config.Linear:
    """Return a method at position `t`, from the first model (0) to the second (1)."""
    if isinstance(method, config.Slerp):
        return config.Slerp(kind="slerp", t=t)
    return config.Linear(kind="linear", weights=[1 - t, t])


def soup_weights(method: config.Linear, count: int) -> list[float]:
    """Return a weight for each of `count` models, before they are divided by their sum.

    Notes
    -----
    ``ema`` with decay d unrolls e_0 = m_0, e_i = d e_{i-1} + (1 - d) m_i.
    """
    if isinstance(method.weights, list):
        return method.weights
    if method.weights == "uniform":
        return [1.0] * count
    if method.weights == "linear":
        return [float(place) for place in range(1, count + 1)]
    rest = [(1 - method.decay) * method.decay ** (count - 1 - place) for place in range(1, count)]
    return [method.decay ** (count - 1), *rest]


def _in_mergekit(method: config.MergeMethod, count: int) -> tuple[str, dict[str, Any]]:
    """Return mergekit's name of a method, and its parameters where they are the same for all tensors."""
    if isinstance(method, config.Slerp):
        return "slerp", {}
    if isinstance(method, config.Linear):
        return "linear", {"weight": soup_weights(method, count), "normalize": True}
    if isinstance(method, config.ModelStock):
        return "model_stock", {"filter_wise": method.rows}
    if isinstance(method, config.Karcher):
        return "karcher", {"max_iter": method.iterations, "tol": method.tolerance}
    shared: dict[str, Any] = {
        "weight": method.weights or [1.0] * count,
        "lambda": method.scale,
        "normalize": method.normalize,
    }
    if isinstance(method, config.TaskArithmetic):
        return "task_arithmetic", shared
    shared["density"] = method.density
    if isinstance(method, config.Ties):
        return "ties", shared
    return {"sum": "dare_linear", "elect": "dare_ties"}[method.signs], shared


def _check_filters(method: config.Slerp, names: Sequence[str]) -> None:
    if not isinstance(method.t, list):
        return
    for index, item in enumerate(method.t):
        wanted = item.filter if isinstance(item, config.TensorValue) else None
        if wanted is not None and wanted != "*" and not any(wanted in name for name in names):
            parts = sorted({part for name in names for part in name.split(".") if not part.isdigit()})
            raise InputError(
                f"the filter {wanted!r} fits no tensor{did_you_mean(wanted, parts)}",
                where=f"method.t.{index}.filter",
                todo=f"parts of names: {', '.join(parts)}",
            )
