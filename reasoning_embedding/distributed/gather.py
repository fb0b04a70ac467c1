"""Rows of all ranks in one place, and the true gradient back.

The popular shortcut, gathering detached rows and putting one's own slice back, drops what the other
ranks' losses say about this rank's rows. Here the gradient of every rank is summed before it is sliced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from .world import World


def all_gather_rows(rows: Tensor, counts: Sequence[int], world: World) -> Tensor:
    """Concatenate the rows of all ranks, in rank order.

    Parameters
    ----------
    rows : Tensor
        (counts[rank], D), detached; ranks may hold different numbers of rows, none included.
    counts : sequence of int
        Rows of each rank, known to all: an uneven gather without it aborts gloo.
    world : World
        The job.

    Returns
    -------
    Tensor
        (sum(counts), D).
    """
    if world.size == 1:
        return rows
    width = max(counts)
    padded = rows.new_zeros(width, rows.shape[1])
    padded[: len(rows)] = rows
    gathered = rows.new_empty(world.size * width, rows.shape[1])
    dist.all_gather_into_tensor(gathered, padded)
    return torch.cat([gathered[rank * width : rank * width + count] for rank, count in enumerate(counts)])


def sum_over_ranks(tensor: Tensor, world: World) -> Tensor:
    """Sum a tensor over all ranks, in place; every rank gets the sum."""
    if world.size > 1:
        dist.all_reduce(tensor)
    return tensor


def max_over_ranks(value: int, world: World) -> int:
    """Return the largest value of any rank, to every rank: how ranks agree on what one of them noticed."""
    if world.size == 1:
        return value
    shared = torch.tensor(value, device=world.device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return int(shared)


def sum_gradients(
    parameters: Iterable[torch.nn.Parameter], world: World, *, bucket_bytes: int = 1 << 26
) -> None:
    """Sum the gradients of all trainable parameters over all ranks, in place, in buckets.

    A parameter without a gradient on this rank counts as zero: a rank may have had nothing to do.
    """
    if world.size == 1:
        return
    bucket: list[Tensor] = []
    held = 0
    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if bucket and (held >= bucket_bytes or bucket[0].dtype != parameter.grad.dtype):
            _sum_bucket(bucket)
            bucket, held = [], 0
        bucket.append(parameter.grad)
        held += parameter.grad.numel() * parameter.grad.element_size()
    if bucket:
        _sum_bucket(bucket)


def _sum_bucket(gradients: list[Tensor]) -> None:
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
