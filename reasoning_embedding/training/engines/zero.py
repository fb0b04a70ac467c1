"""Optimizer states, gradients and parameters in shards by DeepSpeed's ZeRO stages 1, 2 and 3."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor

from reasoning_embedding.backbones import Embedder, Pack
from reasoning_embedding.config import EngineSettings
from reasoning_embedding.config.engine import PRECISION_SECTIONS
from reasoning_embedding.distributed import World
from reasoning_embedding.errors import SetupError

from .base import Engine, MakeOptimizer, full_copy

#: Keys of a DeepSpeed file that the run's own configuration stands for; they were checked to agree with it.
RUN_DECIDES = {
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "optimizer",
    "scheduler",
    *PRECISION_SECTIONS,
}


class ZeRO(Engine):
    """A DeepSpeed engine that reduces gradients once a step.

    Parameters
    ----------
    embedder, world, make_optimizer, max_norm
        As of :func:`.build_engine`; the optimizer is that of the full module.
    compute : torch.dtype, optional
        Compute dtype of the encoder, as under ``torch.autocast``; DeepSpeed ends an autocast that is opened
        around it. Weights, sums and communication stay in the parameters' dtype.
    settings : EngineSettings
        With DeepSpeed's configuration; what the run decides (batch sizes, clipping, precision, optimizer) is replaced.

    Notes
    -----
    Until a step's last backward pass gradients stay unsharded on each rank: communication is the same whatever
    the number of packs (``coalesce_grad_reduction``).
    """

    equal_forwards = True

    def __init__(
        self,
        embedder: Embedder,
        world: World,
        make_optimizer: MakeOptimizer,
        *,
        max_norm: float | None = None,
        compute: torch.dtype | None = None,
        settings: EngineSettings,
    ) -> None:
        super().__init__(embedder, world, max_norm=max_norm)
        self._optimizer: Any
        self._stage = settings.deepspeed["zero_optimization"]["stage"]
        self._offloads = settings.optimizer_on_host
        plain = make_optimizer(embedder)
        self._parameters = [p for group in plain.param_groups for p in group["params"]]
        self._groups = plain.state_dict()["param_groups"]
        self._engine = _initialize(
            embedder, plain, _configuration(settings.deepspeed, world, self.max_norm, compute)
        )
        self._optimizer = self._engine.optimizer

    def forward(self, pack: Pack) -> Tensor:
        """Embed through DeepSpeed, which gathers parameters where they are partitioned."""
        return self._engine(pack)

    @contextlib.contextmanager
    def summing(self) -> Generator[None]:
        """Add up the backward passes inside, then reduce to shards."""
        with self._engine.coalesce_grad_reduction():
            yield

    def backward(self, embeddings: Tensor, gradient: Tensor, *, last: bool) -> None:
        """Accumulate locally."""
        # DeepSpeed means over ranks; a step's gradient is the ranks' sum.
        self._engine.backward((embeddings * (gradient * self.world.size)).sum())

    def update(self, learning_rate: float) -> float:
        """Let DeepSpeed clip, check and step; it leaves the weights alone where the norm is not finite."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def weights(self, *, everywhere: bool = False) -> dict[str, Tensor]:
        """Gather one tensor after the other in stage 3; below it every rank holds them."""
        from deepspeed.runtime.zero import GatheredParameters

        full: dict[str, Tensor] = {}
        device = self.world.device if everywhere else torch.device("cpu")
        for name, parameter in self.embedder.named_parameters():
            with GatheredParameters([parameter], enabled=self._stage == 3):
                if everywhere or self.world.is_main:
                    full[name] = parameter.detach().to(device, copy=True)
        return full

    def optimizer_state(self) -> dict[str, Any]:
        """Gather each parameter's state from the flat partitions that DeepSpeed keeps; other ranks keep none."""
        from deepspeed.utils import safe_get_full_optimizer_state

        example = next(iter(self._optimizer.optimizer.state.values()), {})
        state: dict[int, dict[str, Tensor]] = {}
        if example:
            self._link_states()
            for index, parameter in enumerate(self._parameters):
                for kind, value in example.items():
                    full = safe_get_full_optimizer_state(parameter, kind) if value.ndim else value.clone()
                    if self.world.is_main:
                        state.setdefault(index, {})[kind] = full.cpu()
        return {"state": state, "param_groups": self._groups}

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Write this rank's part of each parameter's state into the flat partitions."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        if not state["state"]:
            return
        self._make_states(state["state"][0])
        for index, parameter in enumerate(self._parameters):
            for kind, value in state["state"][index].items():
                if value.ndim and self._stage == 3:
                    safe_set_local_optimizer_state(parameter, self._part(value, parameter), kind)
                elif value.ndim:
                    safe_set_full_optimizer_state(parameter, value, kind)

    def _part(self, value: Tensor, parameter: Any) -> Tensor:
        """Cut a full tensor as stage 3 cuts its parameter: evenly, the last part padded."""
        size = parameter.ds_tensor.numel()
        part = value.flatten()[size * self.world.rank :][:size]
        return torch.nn.functional.pad(part, (0, size - part.numel()))

    def _make_states(self, example: dict[str, Tensor]) -> None:
        """Make states of the flat partitions; an optimizer makes them in its first step only."""
        zero = self._optimizer
        below = self._stage < 3
        for flat in zero.single_partition_of_fp32_groups if below else zero.fp32_partitioned_groups_flat:
            zero.optimizer.state[flat] = {
                kind: torch.zeros_like(flat) if value.ndim else value.to(flat.device, copy=True)
                for kind, value in example.items()
            }
        self._link_states()

    def _link_states(self) -> None:
        """Let every parameter below stage 3 know its states; DeepSpeed links those of the first group only."""
        if self._stage < 3:
            self._optimizer._hp_optimizer_states_linked = False
            self._optimizer._lazy_init_hp_params_optimizer_state()

    def state_elements(self) -> int:
        """Count this rank's part; a partitioned parameter keeps its size aside."""
        full = sum(getattr(p, "ds_numel", p.numel()) for p in self._parameters)
        return 0 if self._offloads else -(-full // self.world.size)

    def full_embedder(self) -> Embedder:
        """Build a copy on every rank where parameters are partitioned."""
        return full_copy(self) if self._stage == 3 else self.embedder


def _initialize(embedder: Embedder, optimizer: torch.optim.Optimizer, settings: dict[str, Any]) -> Any:
    try:
        import deepspeed
    except ImportError as error:
        raise SetupError(
            "DeepSpeed is not installed", todo="pip install 'reasoning-embedding[deepspeed]'"
        ) from error
    engine, *_ = deepspeed.initialize(
        model=embedder, optimizer=optimizer, config=settings, dist_init_required=False
    )
    return engine


def _configuration(
    content: dict[str, Any], world: World, max_norm: float, compute: torch.dtype | None
) -> dict[str, Any]:
    """Return DeepSpeed's configuration: the launcher's file, and what the run decides in its own words."""
    zero = {key: value for key, value in content["zero_optimization"].items() if value != "auto"}
    if world.device.type == "cpu":
        _spare_the_cpu()
        zero["overlap_comm"] = False
    decided: dict[str, Any] = {
        "zero_optimization": zero,
        "train_micro_batch_size_per_gpu": 1,  # DeepSpeed wants a number; batches are not its business here
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_norm if math.isfinite(max_norm) else 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    if compute is not None:
        decided["torch_autocast"] = {
            "enabled": True,
            "dtype": str(compute).removeprefix("torch."),
            "lower_precision_safe_modules": [],  # those whose gradients would travel in this dtype
        }
    return {key: value for key, value in content.items() if key not in RUN_DECIDES} | decided


def _spare_the_cpu() -> None:
    """Keep DeepSpeed from compiling communication for minutes, and from asking numactl at every reduction."""
    with contextlib.suppress(ImportError):
        from deepspeed import ops
        from deepspeed.ops.op_builder.all_ops import ALL_OPS

        vars(ops).setdefault("__compatible_ops__", dict.fromkeys(ALL_OPS, False))
    os.environ.setdefault("LOCAL_SIZE", "1")
