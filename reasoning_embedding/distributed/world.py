"""The ranks of a job: who am I, on which device, and are we really connected."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist

from reasoning_embedding.errors import SetupError


@dataclass(frozen=True)
class World:
    """One rank's view of the job.

    Attributes
    ----------
    rank : int
        0 <= rank < size.
    size : int
        Number of ranks.
    device : torch.device
        Where this rank computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        """Whether this rank writes files and speaks."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.size > 1:
            dist.barrier()


def start_world(*, timeout_minutes: float = 10.0) -> World:
    """Join the job that ``accelerate launch`` or ``torchrun`` started; alone without one.

    Parameters
    ----------
    timeout_minutes : float
        After this long a collective that waits for a dead rank ends the job.

    Raises
    ------
    SetupError
        If the launcher's number of processes and the connected ones differ.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched == 1 and not torch.cuda.is_available():
        return World()
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    # A bare Accelerator on a CPU under torchrun gives unconnected single processes, without an error.
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(minutes=timeout_minutes))],
    )
    if accelerator.num_processes != launched:
        raise SetupError(
            f"the launcher started {launched} processes, but only {accelerator.num_processes} are connected",
            todo="on a CPU launch with torchrun --nproc_per_node N -m reasoning_embedding train CONFIG",
        )
    return World(accelerator.process_index, accelerator.num_processes, accelerator.device)


def stop_world() -> None:
    """Leave the process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
