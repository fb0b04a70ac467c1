"""Which engine holds the model, as the launcher says it: read from its environment, or from its file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json_value

from .training import Training

EngineName = Literal["replicated", "zero1", "zero2", "fsdp2", "zero3"]
#: What ranks can hold one model by: each all of it, DeepSpeed's ZeRO stages, FSDP2.
ENGINES: tuple[EngineName, ...] = ("replicated", "zero1", "zero2", "fsdp2", "zero3")
_STAGES: dict[object, EngineName] = {1: "zero1", 2: "zero2", 3: "zero3"}

#: Sections of a DeepSpeed file that say what is computed in; a run's ``precision`` stands for them.
PRECISION_SECTIONS = ("fp16", "bf16", "bfloat16", "torch_autocast", "amp")
#: Those that hold an object.
_SECTIONS = ("zero_optimization", "optimizer", "scheduler", *PRECISION_SECTIONS)
_AUTO = (None, "auto")


@dataclass(frozen=True)
class EngineSettings:
    """How the ranks of a job hold one model.

    Attributes
    ----------
    name : str
        One of :data:`ENGINES`.
    precision : str
        ``mixed_precision`` of accelerate's file; ``no`` where it says nothing.
    optimizer_on_host, weights_on_host : bool
        Whether optimizer state, and the weights between their uses, wait in host memory.
    reshard : bool
        FSDP2: free a layer's parameters after its forward, and gather them again for its backward.
    recompute : bool
        FSDP2: the launcher asks for activation checkpointing.
    bucket_elements : int
        DeepSpeed: gradients that are reduced together; 0 where it makes no buffer for them.
    buckets : int
        Such buffers, below stage 3.
    live_elements : int
        DeepSpeed's stage 3: elements of gathered weights that may be alive.
    deepspeed : dict
        The content of DeepSpeed's file, for DeepSpeed itself; empty for other engines.
    file : str
        Where that was read, for messages.

    Notes
    -----
    The defaults of a DeepSpeed stage are those of ``configs/deepspeed``; :meth:`of_deepspeed` takes DeepSpeed's own for
    what its file leaves out.
    """

    name: EngineName = "replicated"
    precision: str = "no"
    optimizer_on_host: bool = False
    weights_on_host: bool = False
    reshard: bool = True
    recompute: bool = False
    bucket_elements: int = 200_000_000
    buckets: int = 2  # where reduction overlaps with the backward pass
    live_elements: int = 1_000_000_000
    deepspeed: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    file: str = field(default="", compare=False)

    @property
    def is_sharded(self) -> bool:
        """Whether each rank holds a part of the weights."""
        return self.name in ("fsdp2", "zero3")

    @property
    def is_deepspeed(self) -> bool:
        """Whether it is one of DeepSpeed's stages."""
        return self.name.startswith("zero")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> EngineSettings:
        """Read what ``accelerate launch`` leaves in the environment of its processes.

        Parameters
        ----------
        environment : mapping, optional
            Absent: that of this process.

        Raises
        ------
        InputError
            If the launcher asks for something there is no engine for, or its DeepSpeed file cannot be read.
        """
        given = os.environ if environment is None else environment
        precision = given.get("ACCELERATE_MIXED_PRECISION", "no").lower()
        if _is_on(given.get("ACCELERATE_USE_DEEPSPEED")):
            return cls._of_deepspeed_file(given.get("ACCELERATE_DEEPSPEED_CONFIG_FILE"), precision)
        if _is_on(given.get("ACCELERATE_USE_FSDP")):
            # accelerate names each variable after its key.
            return cls._of_fsdp({name.lower(): value for name, value in given.items()}, precision)
        return cls(precision=precision)

    @classmethod
    def from_launcher_file(cls, file: Path) -> tuple[EngineSettings, int | None]:
        """Read the file that ``accelerate launch --config_file`` takes, and the DeepSpeed file that it names.

        Parameters
        ----------
        file : Path
            YAML.

        Returns
        -------
        EngineSettings
            What the ranks that it starts will find.
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
        precision = str(found.get("mixed_precision") or "no").lower()
        match str(found.get("distributed_type")).upper():
            case "DEEPSPEED":
                options = found.get("deepspeed_config") or {}
                engine = cls._of_deepspeed_file(options.get("deepspeed_config_file"), precision)
            case "FSDP":
                engine = cls._of_fsdp(found.get("fsdp_config") or {}, precision)
            case _:
                engine = cls(precision=precision)
        return engine, processes if isinstance(processes, int) else None

    @classmethod
    def of_deepspeed(
        cls, content: dict[str, Any], *, precision: str = "no", file: str = ""
    ) -> EngineSettings:
        """Return the settings that a DeepSpeed configuration makes.

        Parameters
        ----------
        content : dict
            DeepSpeed's configuration; what it leaves out, or to ``auto``, is DeepSpeed's own.
        precision : str
            ``mixed_precision`` of accelerate's file.
        file : str
            Where the content was read.

        Raises
        ------
        InputError
            If a section has another form, or there is no such stage.
        """
        _check_sections(content, file)
        zero = {key: value for key, value in content["zero_optimization"].items() if value != "auto"}
        stage = zero["stage"]

        def waits_on_host(section: str) -> bool:
            return (zero.get(section) or {}).get("device", "none") != "none"

        has_buffer = zero.get("contiguous_gradients", True)
        return cls(
            _STAGES[stage],
            precision,
            optimizer_on_host=waits_on_host("offload_optimizer"),
            weights_on_host=stage == 3 and waits_on_host("offload_param"),
            bucket_elements=int(zero.get("reduce_bucket_size", 500_000_000)) if has_buffer else 0,
            buckets=2 if zero.get("overlap_comm", stage == 3) else 1,
            live_elements=int(zero.get("stage3_max_live_parameters", 1_000_000_000)),
            deepspeed=content,
            file=file,
        )

    @classmethod
    def _of_deepspeed_file(cls, file: str | None, precision: str) -> EngineSettings:
        if file in (None, "", "none", "None"):
            raise InputError(
                "accelerate asks for DeepSpeed without a configuration of it",
                where="deepspeed_config",
                todo="set deepspeed_config_file in accelerate's file, as configs/accelerate/8gpu-zero2.yaml does",
            )
        todo = "name a JSON file, relative to where the job is launched"
        try:
            content = read_json_value(Path(file), todo=todo)
        except OSError as error:
            raise InputError(
                f"DeepSpeed's configuration cannot be read: {error}", where=file, todo=todo
            ) from error
        return cls.of_deepspeed(content, precision=precision, file=file)

    @classmethod
    def _of_fsdp(cls, options: Mapping[str, Any], precision: str) -> EngineSettings:
        if str(options.get("fsdp_version", 1)) != "2":
            raise InputError(
                "accelerate asks for FSDP version 1; the engine here is version 2",
                where="fsdp_config",
                todo="set fsdp_version: 2 in accelerate's file",
            )
        offload = _is_on(options.get("fsdp_offload_params"))
        return cls(
            "fsdp2",
            precision,
            optimizer_on_host=offload,
            weights_on_host=offload,
            reshard=_is_on(options.get("fsdp_reshard_after_forward", True)),
            recompute=_is_on(options.get("fsdp_activation_checkpointing")),
        )


def _is_on(value: object) -> bool:
    return str(value).lower() in ("true", "1", "yes")


def _check_sections(content: object, file: str) -> None:
    """Refuse a DeepSpeed configuration of another form."""
    if not isinstance(content, dict):
        raise InputError(
            "DeepSpeed's configuration is no JSON object", where=file, todo="write keys and values"
        )
    for section in _SECTIONS:
        given = content.get(section, {})
        if not isinstance(given, dict) and given != "auto":
            raise InputError(
                f"{section} is {given!r}, where DeepSpeed takes an object",
                where=file,
                todo='write {...}, "auto", or leave it out',
            )
    zero = content.get("zero_optimization", {})
    stage = zero.get("stage") if isinstance(zero, dict) else zero
    if stage not in (1, 2, 3):
        raise InputError(
            f"zero_optimization.stage is {stage!r}",
            where=file,
            todo="choose 1, 2 or 3, or launch without DeepSpeed",
        )


def check_engine(engine: EngineSettings, training: Training, *, ranks: int) -> None:
    """Refuse a launch that contradicts the recipe, with every contradiction and both its values.

    Parameters
    ----------
    engine : EngineSettings
        What the launcher asks for.
    training : Training
        The recipe.
    ranks : int
        How many ranks it started.

    Raises
    ------
    InputError
        Listing each contradiction.
    """
    wrong = []
    if training.ranks not in (None, ranks):
        wrong.append(f"the launcher started {ranks} ranks, training.ranks is {training.ranks}")
    if engine.precision not in ("no", training.precision):
        wrong.append(
            f"the launcher's mixed_precision is {engine.precision}, training.precision is {training.precision}"
        )
    if engine.name != "replicated" and training.optimizer.kind != "adamw":
        wrong.append(
            f"{engine.name} cuts parameters into shards, training.optimizer is {training.optimizer.kind}, "
            "which needs them whole"
        )
    if engine.recompute and not training.activation_checkpointing:
        wrong.append("fsdp_activation_checkpointing is true, training.activation_checkpointing is false")
    if engine.is_deepspeed:
        wrong += _contradictions(engine.deepspeed, training, ranks)
    if wrong:
        raise InputError(
            "\n  ".join(["the launcher and the run contradict each other:", *wrong]),
            where=engine.file or None,
            todo='let one of the two say it; in a DeepSpeed file "auto" leaves it to the run',
        )


def _contradictions(content: dict[str, Any], training: Training, ranks: int) -> list[str]:
    """Contradictions of a DeepSpeed file: what its key says, and what the run's key says."""
    wrong = []

    def differ(key: str, theirs: object, ours: str) -> None:
        wrong.append(f"{key} is {theirs}, {ours}")

    total, micro = content.get("train_batch_size"), content.get("train_micro_batch_size_per_gpu")
    batch_size = f"training.batch_size is {training.batch_size}"
    if total not in _AUTO and total != training.batch_size:
        differ("train_batch_size", total, batch_size)
    if micro not in _AUTO and micro * ranks != training.batch_size:
        differ("train_micro_batch_size_per_gpu", f"{micro} on each of {ranks} ranks", batch_size)
    if (steps := content.get("gradient_accumulation_steps")) not in (*_AUTO, 1):
        differ(
            "gradient_accumulation_steps",
            steps,
            "a step of the run is one batch, cut by training.pack_tokens",
        )
    if (limit := content.get("gradient_clipping")) not in _AUTO and limit != (training.max_grad_norm or 0.0):
        differ("gradient_clipping", limit, f"training.max_grad_norm is {training.max_grad_norm}")
    optimizer = f"training.optimizer is {training.optimizer.kind}, learning_rate {training.learning_rate:g}"
    schedule = f"training.schedule is {training.schedule}"
    for section, ours in (("optimizer", optimizer), ("scheduler", schedule)):
        if content.get(section) not in _AUTO:
            differ(section, content[section].get("type", "given"), ours)
    for section in PRECISION_SECTIONS:
        if content.get(section) not in _AUTO and content[section].get("enabled") is True:
            differ(
                f"{section}.enabled",
                "true",
                f"training.precision is {training.precision} (weights and sums in fp32; leave the section out)",
            )
    if content.get("communication_data_type") not in (*_AUTO, "fp32"):
        differ("communication_data_type", content["communication_data_type"], "gradients are summed in fp32")
    return wrong
