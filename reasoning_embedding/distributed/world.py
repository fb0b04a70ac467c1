"""The ranks of a job: who am I, on which device, and are we really connected."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist

from reasoning_embedding.errors import SetupError, TrainingError


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


#: What a user may ask for.
DeviceName = Literal["auto", "cpu", "cuda", "mps"]


@contextlib.contextmanager
def joined_world(*, timeout_minutes: float = 10.0, device: DeviceName = "auto") -> Generator[World]:
    """Join the job that ``accelerate launch`` or ``torchrun`` started (alone without one), and leave it at the end.

    Parameters
    ----------
    timeout_minutes : float
        After this long a collective that waits for a dead rank ends the job.
    device : {"auto", "cpu", "cuda", "mps"}
        What each rank computes on; see :func:`chosen_device`.

    Raises
    ------
    SetupError
        If the ranks of the job do not find each other, or there are more of them on this machine than GPUs.
    """
    world = _join(timeout_minutes, device)
    try:
        yield world
    finally:
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


def _join(timeout_minutes: float, name: DeviceName) -> World:
    if "RANK" not in os.environ:
        if os.environ.get("WORLD_SIZE", "1") != "1":
            raise SetupError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but this process was given no RANK",
                todo="launch with torchrun --nproc_per_node N -m reasoning_embedding ..., or accelerate launch",
            )
        return World(device=chosen_device(name))
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    except (KeyError, ValueError) as error:
        raise SetupError(
            f"the launcher's RANK, WORLD_SIZE and LOCAL_RANK are not all numbers: {error}",
            todo="launch with torchrun --nproc_per_node N -m reasoning_embedding ..., or accelerate launch",
        ) from error
    device = chosen_device(name, local_rank)
    try:
        # Rows and gradients travel on the device; flags and counts of a GPU job may travel on the host.
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            timeout=timedelta(minutes=timeout_minutes),
        )
    except (ValueError, RuntimeError) as error:
        raise SetupError(
            f"rank {rank} of {size} did not find the others: {str(error).splitlines()[0]}",
            todo="launch with torchrun or accelerate launch, which set MASTER_ADDR and MASTER_PORT",
        ) from error
    return World(rank, size, device)


def chosen_device(name: DeviceName = "auto", local_rank: int = 0) -> torch.device:
    """Return the device of a rank.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda", "mps"}
        ``auto``: a CUDA GPU where one answers and the launcher did not ask for the CPU, else the CPU.
    local_rank : int
        Which of this machine's processes it is.

    Raises
    ------
    SetupError
        If this machine has no such device, or fewer GPUs than processes.
    """
    todo = "use --device cpu or auto (training.device in a configuration); `rembed doctor` says what there is"
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise SetupError("this machine (or this torch) has no MPS device", where="device", todo=todo)
        return torch.device("mps")
    if name == "cuda" and not torch.cuda.is_available():
        raise SetupError("no CUDA GPU answers on this machine", where="device", todo=todo)
    by_launcher = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    if name == "cpu" or (name == "auto" and (by_launcher or not torch.cuda.is_available())):
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise SetupError(
            f"local rank {local_rank} has no GPU: this machine shows {torch.cuda.device_count()}",
            todo="launch as many processes a machine as it has GPUs",
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


@contextlib.contextmanager
def explain_lost_ranks(
    world: World, *, todo: str = "look for the rank that failed first, and go on with --resume"
) -> Generator[None]:
    """Turn what a collective raises when another rank is gone, or silent for too long, into an error that says so.

    Parameters
    ----------
    world : World
        The job.
    todo : str
        What the user can do about it.

    Raises
    ------
    TrainingError
        Naming this rank; the log of the rank that failed first has the cause.
    """
    try:
        yield
    except RuntimeError as error:
        if world.size == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise TrainingError(
            f"rank {world.rank} lost another of the {world.size} ranks: {str(error).strip().splitlines()[0]}",
            todo=todo,
        ) from error
