"""The sum of gradients over ranks, sent bucket by bucket while the last backward pass makes the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable

import torch
import torch.distributed as dist
from torch.nn import Parameter

from .world import World


class GradientSum:
    """Sums the gradients of some parameters over all ranks, once a step.

    Parameters
    ----------
    parameters : iterable of Parameter
        Equal on all ranks, in the order of the forward pass; those that need no gradient are left out.
    world : World
        The job; of one rank there is nothing to sum.
    bucket_bytes : int
        Gradients that travel together, about.

    Notes
    -----
    Buckets leave in one order on all ranks, last layers first: a bucket goes as soon as it is complete and those before
    it have gone, the others when :meth:`finish` is called, so a rank without a backward pass keeps up. A bucket is
    copied into one tensor, whose parts become the gradients: no second copy is held, and none is made when it
    arrives (as PyTorch's DDP does it, Li et al. 2020, arXiv 2006.15704).
    """

    def __init__(self, parameters: Iterable[Parameter], world: World, *, bucket_bytes: int = 1 << 26) -> None:
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        self._buckets = _buckets(trained[::-1], bucket_bytes) if world.size > 1 else []
        self._place = {parameter: place for place, bucket in enumerate(self._buckets) for parameter in bucket}
        self._missing: list[set[Parameter]] = []
        self._sent: list[dist.Work] = []

    @contextlib.contextmanager
    def last_pass(self) -> Generator[None]:
        """Send what the backward pass inside completes; no other may follow before :meth:`finish`.

        Raises
        ------
        RuntimeError
            If a gradient grows after it was sent.
        """
        self._missing = [set(bucket) for bucket in self._buckets]
        hooks = [parameter.register_post_accumulate_grad_hook(self._ready) for parameter in self._place]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def finish(self) -> None:
        """Send the rest, and wait for all. A parameter without a gradient on this rank counts as zero."""
        while len(self._sent) < len(self._buckets):
            self._send()
        for work in self._sent:
            work.wait()
        self._sent = []

    def _ready(self, parameter: Parameter) -> None:
        place = self._place[parameter]
        if place < len(self._sent):
            raise RuntimeError("a gradient grew after it was sent to the other ranks")
        self._missing[place].discard(parameter)
        while len(self._sent) < len(self._buckets) and not self._missing[len(self._sent)]:
            self._send()

    def _send(self) -> None:
        bucket = self._buckets[len(self._sent)]
        flat = torch.cat([_gradient(parameter).reshape(-1) for parameter in bucket])
        parts = flat.split([parameter.numel() for parameter in bucket])
        for parameter, part in zip(bucket, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        work = dist.all_reduce(flat, async_op=True)
        assert work is not None
        self._sent.append(work)


def _gradient(parameter: Parameter) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _buckets(parameters: list[Parameter], bucket_bytes: int) -> list[list[Parameter]]:
    """Neighbours of one dtype, a bucket closed by the parameter that fills it."""
    buckets: list[list[Parameter]] = []
    held = bucket_bytes
    for parameter in parameters:
        if held >= bucket_bytes or buckets[-1][0].dtype != parameter.dtype:
            buckets.append([])
            held = 0
        buckets[-1].append(parameter)
        held += parameter.numel() * parameter.element_size()
    return buckets
