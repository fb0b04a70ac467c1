"""How an engine holds the model, as a plan needs it: from its name, or from the launcher's own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from reasoning_embedding.errors import InputError

if TYPE_CHECKING:
    from reasoning_embedding.training.engines import Launch

EngineName = Literal["replicated", "fsdp2", "zero1", "zero2", "zero3"]
ENGINES: tuple[EngineName, ...] = ("replicated", "zero1", "zero2", "fsdp2", "zero3")


@dataclass(frozen=True)
class Holding:
    """An engine and its settings that cost memory or time.

    Attributes
    ----------
    engine : str
        Its name.
    optimizer_on_host, weights_on_host : bool
        Whether optimizer state, and the weights between their uses, wait in host memory.
    reshard : bool
        FSDP2: whether a layer is freed after its forward.
    bucket : int
        DeepSpeed: gradients that are reduced together, elements; 0 where it makes no buffer for them.
    buckets : int
        Such buffers, below stage 3.
    live : int
        DeepSpeed's stage 3: elements of gathered weights that may be alive.
    """

    engine: EngineName
    optimizer_on_host: bool = False
    weights_on_host: bool = False
    reshard: bool = True
    bucket: int = 200_000_000  # as in configs/deepspeed, and two buffers where reduction overlaps
    buckets: int = 2
    live: int = 1_000_000_000

    @property
    def sharded(self) -> bool:
        """Whether each rank holds a part of the weights."""
        return self.engine in ("fsdp2", "zero3")

    @property
    def deepspeed(self) -> bool:
        """Whether it is one of DeepSpeed's stages."""
        return self.engine.startswith("zero")


HOLDINGS: dict[EngineName, Holding] = {name: Holding(name) for name in ENGINES}


def read_launcher(file: Path) -> tuple[Launch, int | None]:
    """Read the file that ``accelerate launch --config_file`` takes, and the DeepSpeed file that it names.

    Parameters
    ----------
    file : Path
        YAML.

    Returns
    -------
    Launch
        What it asks for, as the ranks that it starts would read it.
    int or None
        Processes that it starts, if it says so.

    Raises
    ------
    InputError
        If a file cannot be read, or asks for an engine that is not here.
    """
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(
            f"the launcher's file cannot be read: {str(error).splitlines()[0]}",
            where=str(file),
            todo="name a YAML file that accelerate launch --config_file takes, as in configs/accelerate",
        ) from error
    if not isinstance(found, dict):
        raise InputError("not a file of accelerate", where=str(file), todo="see configs/accelerate")
    processes = found.get("num_processes")
    from reasoning_embedding.training.engines import read_launch

    return read_launch(_environment(found)), processes if isinstance(processes, int) else None


def _environment(found: Mapping[str, Any]) -> dict[str, str]:
    """What ``accelerate launch`` puts into the environment for such a file, as far as it is read here."""
    kind = str(found.get("distributed_type", "NO")).upper()
    fsdp, deepspeed = found.get("fsdp_config") or {}, found.get("deepspeed_config") or {}
    return {
        "ACCELERATE_MIXED_PRECISION": str(found.get("mixed_precision") or "no"),
        "ACCELERATE_USE_DEEPSPEED": str(kind == "DEEPSPEED"),
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(deepspeed.get("deepspeed_config_file", "")),
        "ACCELERATE_USE_FSDP": str(kind == "FSDP"),
        "FSDP_VERSION": str(fsdp.get("fsdp_version", 1)),
        "FSDP_RESHARD_AFTER_FORWARD": str(fsdp.get("fsdp_reshard_after_forward", True)),
        "FSDP_OFFLOAD_PARAMS": str(fsdp.get("fsdp_offload_params", False)),
        "FSDP_ACTIVATION_CHECKPOINTING": str(fsdp.get("fsdp_activation_checkpointing", False)),
    }


def holding_of(launch: Launch) -> Holding:
    """Return what a plan needs of a launch; what DeepSpeed's file leaves out, or to ``auto``, is DeepSpeed's own."""
    if launch.engine != "zero":
        offload = launch.offload
        return Holding(
            launch.engine, optimizer_on_host=offload, weights_on_host=offload, reshard=launch.reshard
        )
    zero = {key: value for key, value in launch.deepspeed["zero_optimization"].items() if value != "auto"}
    stage = zero["stage"]
    names: dict[int, EngineName] = {1: "zero1", 2: "zero2", 3: "zero3"}

    def on_host(section: str) -> bool:
        return (zero.get(section) or {}).get("device", "none") != "none"

    contiguous, overlap = zero.get("contiguous_gradients", True), zero.get("overlap_comm", stage == 3)
    return Holding(
        names[stage],
        optimizer_on_host=on_host("offload_optimizer"),
        weights_on_host=stage == 3 and on_host("offload_param"),
        bucket=int(zero.get("reduce_bucket_size", 500_000_000)) if contiguous else 0,
        buckets=2 if overlap else 1,
        live=int(zero.get("stage3_max_live_parameters", 1_000_000_000)),
    )
