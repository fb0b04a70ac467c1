"""What a forward keeps for its backward pass, measured in bytes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Footprint:
    """Bytes of one forward and backward pass.

    Attributes
    ----------
    kept : int
        Held between the two: activations.
    working : int
        Most in use at any moment beyond `kept`, and beyond the gradients left afterwards.
    """

    kept: int
    working: int


def measure(
    forward: Callable[[], Tensor], backward: Callable[[Tensor], None], device: torch.device
) -> Footprint:
    """Run `forward`, then `backward` on what it gave, and measure both.

    On a GPU by the allocator's counts; on a CPU, which has none, by following every tensor that is made.
    """
    return _measure_cuda(forward, backward, device) if device.type == "cuda" else _follow(forward, backward)


def _measure_cuda(
    forward: Callable[[], Tensor], backward: Callable[[Tensor], None], device: torch.device
) -> Footprint:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    output = forward()
    kept = torch.cuda.memory_allocated(device) - before
    backward(output)
    del output
    left = torch.cuda.memory_allocated(device) - before
    peak = torch.cuda.max_memory_allocated(device) - before
    return Footprint(kept, max(peak - kept - left, 0))


def _follow(forward: Callable[[], Tensor], backward: Callable[[Tensor], None]) -> Footprint:
    with LiveBytes() as live:
        output = forward()
        kept = live.now
        backward(output)
        del output
        return Footprint(kept, max(live.peak - kept - live.now, 0))


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors made inside that are alive: now, and at most so far.

    Storages are counted once however many tensors view them, and until the last of those is gone, whoever
    holds it: autograd's graph, a checkpoint's cache, or the caller.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator and count what it made."""
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if _plain(t)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if _plain(tensor) and id(tensor.untyped_storage()) not in given:
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return

        def gone(_: object) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def _plain(value: object) -> bool:
    """Whether it is a tensor of torch's own that has memory; on the meta device it is a shape alone."""
    return isinstance(value, Tensor) and type(value) in (Tensor, torch.nn.Parameter) and not value.is_meta
