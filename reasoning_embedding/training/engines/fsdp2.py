"""Parameters, gradients and optimizer states in shards: ``torch.distributed.fsdp.fully_shard``."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from reasoning_embedding.backbones import Embedder, decoder_layers
from reasoning_embedding.config import EngineSettings
from reasoning_embedding.distributed import World, sum_over_ranks

from ..timers import phase
from .base import Engine, MakeOptimizer, full_copy


class FSDP2(Engine):
    """One shard of every parameter on each rank; each decoder layer is gathered when it computes.

    Parameters
    ----------
    embedder, world, make_optimizer, max_norm
        As of :func:`.build_engine`; the optimizer is that of the sharded module.
    compute : torch.dtype, optional
        Dtype in which parameters are gathered and layers compute. Absent: that of the parameters.
    settings : EngineSettings
        Whether layers are freed after their forward, and whether shards wait in host memory.

    Notes
    -----
    Until a step's last backward pass gradients stay unsharded on each rank, in float32, and are reduced once:
    communication is the same whatever the number of packs. The price is 4 bytes a trained parameter.

    Heads stay whole on every rank, in their own precision; their gradients are summed once a step.
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
        options: dict[str, Any] = {
            "mesh": init_device_mesh(world.device.type, (world.size,)),
            "reshard_after_forward": settings.reshard,
            "mp_policy": _precision(compute),
            "offload_policy": CPUOffloadPolicy() if settings.weights_on_host else OffloadPolicy(),
        }
        for layer in decoder_layers(embedder):
            fully_shard(layer, **options)
        self._heads = list(embedder.heads.parameters())
        self._root: Any = fully_shard(embedder, **options, ignored_params=set(self._heads))
        for module in self._root.modules():
            if hasattr(module, "set_gradient_divide_factor"):
                # FSDP means over ranks; a step's gradient is the ranks' sum (gloo knows no scaled sum).
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        self._optimizer = make_optimizer(embedder)

    @contextlib.contextmanager
    def summing(self) -> Generator[None]:
        """Add up the backward passes inside, then sum those of the heads over ranks."""
        yield
        with phase("communication"):
            for parameter in self._heads:
                if parameter.requires_grad:
                    own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                    parameter.grad = sum_over_ranks(own, self.world)

    def _clip(self) -> Tensor:
        """Clip shards and whole heads by the norm of all."""
        trained = [p for p in self.embedder.parameters() if p.requires_grad]
        heads = [p for p in trained if not isinstance(p, DTensor)]
        if not heads:
            return super()._clip()
        sharded = [p.grad for p in trained if isinstance(p, DTensor) and p.grad is not None]
        parts = [torch.nn.utils.get_total_norm([p.grad for p in heads if p.grad is not None])]
        if sharded:
            norm: Any = torch.nn.utils.get_total_norm(sharded)
            parts.append(norm.full_tensor().to(parts[0].device))
        total = torch.stack(parts).norm()
        factor = float(torch.clamp(self.max_norm / (total + 1e-6), max=1.0))
        for parameter in trained:
            if parameter.grad is not None:
                parameter.grad.mul_(factor)
        return total

    def backward(self, embeddings: Tensor, gradient: Tensor, *, last: bool) -> None:
        """Accumulate unsharded gradients; reduce them to shards with the last pass."""
        self._root.set_requires_gradient_sync(last)
        embeddings.backward(gradient)

    def weights(self, *, everywhere: bool = False) -> dict[str, Tensor]:
        """Gather one tensor after the other."""
        full: dict[str, Tensor] = {}
        for name, value in self.embedder.state_dict().items():
            tensor = self._full(value)
            if everywhere or self.world.is_main:
                full[name] = tensor if everywhere else tensor.cpu()
        return full

    def optimizer_state(self) -> dict[str, Any]:
        """Gather one tensor after the other; the other ranks keep none."""
        saved = self.optimizer.state_dict()
        state: dict[int, dict[str, Tensor]] = {}
        for index, entry in saved["state"].items():
            for name, value in entry.items():
                full = self._full(value)
                if self.world.is_main:
                    state.setdefault(index, {})[name] = full.cpu()
        return {**saved, "state": state}

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Cut every tensor as its parameter is cut; each rank does so by itself."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        cut = {
            index: {name: _like(value, parameters[index]) for name, value in entry.items()}
            for index, entry in state["state"].items()
        }
        self.optimizer.load_state_dict({**state, "state": cut})

    def full_embedder(self) -> Embedder:
        """Build a copy on every rank from gathered weights."""
        return full_copy(self)

    def _full(self, value: Tensor) -> Tensor:
        if not isinstance(value, DTensor):
            return value.detach()
        sharded: Any = value.detach().to(self.world.device)
        return sharded.full_tensor()


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """Cut a full tensor where it lies, in rows as ``fully_shard`` does; only this rank's part is copied."""
    if value.shape != parameter.shape or not isinstance(parameter, DTensor):
        return value
    mesh, own = parameter.device_mesh, parameter.to_local()
    rows = -(-len(value) // mesh.size())
    part: Any = value[rows * mesh.get_local_rank() :][: len(own)].to(own.device, copy=True)
    shape, stride = parameter.shape, parameter.stride()
    return DTensor.from_local(part, mesh, parameter.placements, run_check=False, shape=shape, stride=stride)


def _precision(compute: torch.dtype | None) -> MixedPrecisionPolicy:
    if compute is None:
        return MixedPrecisionPolicy()
    # Inputs are token ids; pooling and normalisation choose float32 themselves.
    return MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32, cast_forward_inputs=False)
