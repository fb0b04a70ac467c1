"""Rows of all ranks in one place, and the true gradient back.

The popular shortcut, gathering detached rows and putting one's own slice back, drops what the other
ranks' losses say about this rank's rows. Here the gradient of every rank is summed before it is sliced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .world import World

#: Its name before torch 2.13, which warns of it.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


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
    _all_gather(gathered, padded)
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


def broadcast_object(value: Any, world: World) -> Any:
    """Return the main rank's value on every rank; the others' are ignored."""
    if world.size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=world.device)
    return box[0]
