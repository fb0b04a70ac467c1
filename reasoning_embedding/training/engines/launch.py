"""Which engine the launcher asks for: what ``accelerate launch`` leaves in the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reasoning_embedding.errors import InputError


@dataclass(frozen=True)
class Launch:
    """A launcher's wishes, read but not yet checked against a run.

    Attributes
    ----------
    engine : str
        ``replicated``, ``fsdp2`` or ``zero``.
    precision : str
        ``mixed_precision`` of accelerate's file; ``no`` where it says nothing.
    reshard, offload, recompute : bool
        FSDP2: free a layer's parameters after its forward, keep shards in host memory, recompute layers.
    deepspeed : dict
        DeepSpeed's configuration.
    file : str
        Where that came from.
    """

    engine: Literal["replicated", "fsdp2", "zero"] = "replicated"
    precision: str = "no"
    reshard: bool = True
    offload: bool = False
    recompute: bool = False
    deepspeed: dict[str, Any] = field(default_factory=dict)
    file: str = ""


def read_launch(environment: Mapping[str, str] | None = None) -> Launch:
    """Read the environment of this process.

    Raises
    ------
    InputError
        For a launcher's file that asks for something there is no engine for, or cannot be read.
    """
    env = os.environ if environment is None else environment

    def on(name: str, default: str = "false") -> bool:
        return env.get(name, default).lower() in ("true", "1", "yes")

    precision = env.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if on("ACCELERATE_USE_DEEPSPEED"):
        file = env.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "")
        if file in ("", "none", "None"):
            raise InputError(
                "accelerate asks for DeepSpeed without a configuration of it",
                where="deepspeed_config",
                todo="set deepspeed_config_file in accelerate's file, as configs/accelerate/8gpu-zero2.yaml does",
            )
        return Launch("zero", precision, deepspeed=_deepspeed(file), file=file)
    if on("ACCELERATE_USE_FSDP"):
        if env.get("FSDP_VERSION", "1") != "2":
            raise InputError(
                "accelerate asks for FSDP version 1; the engine here is version 2",
                where="fsdp_config",
                todo="set fsdp_version: 2 in accelerate's file",
            )
        return Launch(
            "fsdp2",
            precision,
            reshard=on("FSDP_RESHARD_AFTER_FORWARD", "true"),
            offload=on("FSDP_OFFLOAD_PARAMS"),
            recompute=on("FSDP_ACTIVATION_CHECKPOINTING"),
        )
    return Launch(precision=precision)


#: Sections of a DeepSpeed file that say what is computed in; a run's ``precision`` stands for them.
PRECISION_SECTIONS = ("fp16", "bf16", "bfloat16", "torch_autocast", "amp")
#: Those that hold an object.
_SECTIONS = ("zero_optimization", "optimizer", "scheduler", *PRECISION_SECTIONS)


def _deepspeed(file: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"DeepSpeed's configuration cannot be read: {error}",
            where=file,
            todo="name a JSON file, relative to where the job is launched",
        ) from error
    if not isinstance(found, dict):
        raise InputError(
            "DeepSpeed's configuration is no JSON object", where=file, todo="write keys and values"
        )
    for section in _SECTIONS:
        given = found.get(section, {})
        if not isinstance(given, dict) and given != "auto":
            raise InputError(
                f"{section} is {given!r}, where DeepSpeed takes an object",
                where=file,
                todo='write {...}, "auto", or leave it out',
            )
    zero = found.get("zero_optimization", {})
    stage = zero.get("stage") if isinstance(zero, dict) else zero
    if stage not in (1, 2, 3):
        raise InputError(
            f"zero_optimization.stage is {stage!r}",
            where=file,
            todo="choose 1, 2 or 3, or launch without DeepSpeed",
        )
    return found
