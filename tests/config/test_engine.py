"""What a launcher asks for, from accelerate's own files and variables, and what contradicts a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reasoning_embedding import config
from reasoning_embedding.config import EngineSettings, check_engine
from reasoning_embedding.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
#: What each file makes, and the processes that it starts: what a plan assumes of an engine is what its file here says.
WANTED = {
    "1gpu": (EngineSettings("replicated"), 1),
    "8gpu-ddp": (EngineSettings("replicated"), 8),
    "8gpu-fsdp2": (EngineSettings("fsdp2"), 8),
    "multi-node-fsdp2": (EngineSettings("fsdp2"), 32),
    "8gpu-zero2": (EngineSettings("zero2"), 8),
    "8gpu-zero3-offload": (EngineSettings("zero3", optimizer_on_host=True, weights_on_host=True), 8),
}


def _environment(file: Path) -> dict[str, str]:
    """What ``accelerate launch --config_file FILE`` sets for its processes."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    words = ["--config_file", str(file), "-m", "reasoning_embedding", "train", "run.yaml"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = "deepspeed_config_file"  # launch_command does so
        return prepare_deepspeed_cmd_env(arguments)[1]
    return prepare_multi_gpu_env(arguments)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_launcher_file_makes_its_engine_and_contradicts_no_default_run(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file read here, and the environment that accelerate makes of it, are one engine."""
    from accelerate.commands.config.config_args import load_config_from_file

    monkeypatch.chdir(ROOT)  # where a job is launched
    wanted, ranks = WANTED[file.stem]
    loaded: Any = load_config_from_file(str(file))
    assert loaded.num_processes == ranks
    launched = EngineSettings.from_environment(_environment(file) if ranks > 1 else {})
    assert launched == wanted
    assert EngineSettings.from_launcher_file(file) == (wanted, ranks)
    for precision in ("bf16", "fp32"):
        check_engine(launched, config.Training(precision=precision), ranks=ranks)
    if wanted.is_deepspeed:
        assert launched.deepspeed["zero_optimization"]["stage"] == int(wanted.name[-1])


def test_every_engine_has_a_launcher_file() -> None:
    assert {file.stem for file in FILES} == set(WANTED)
    used = {json.dumps(path.name) for path in (ROOT / "configs" / "deepspeed").glob("*.json")}
    assert used == {'"zero2.json"', '"zero3-offload.json"'}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "version 1"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "without a configuration"),
        (
            {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": "none.json"},
            "cannot be read",
        ),
    ],
)
def test_a_launcher_that_asks_for_what_there_is_not_is_refused(
    environment: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        EngineSettings.from_environment(environment)


@pytest.mark.parametrize("stage", [None, 0, 4, "2"])
def test_a_stage_there_is_not_is_refused(stage: object, tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": stage}} if stage is not None else {}))
    environment = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)}
    with pytest.raises(InputError, match=r"zero_optimization\.stage"):
        EngineSettings.from_environment(environment)


def test_what_fsdp_is_asked_for_is_read() -> None:
    launch = EngineSettings.from_environment(
        {
            "ACCELERATE_USE_FSDP": "true",
            "FSDP_VERSION": "2",
            "FSDP_RESHARD_AFTER_FORWARD": "false",
            "FSDP_OFFLOAD_PARAMS": "true",
            "FSDP_ACTIVATION_CHECKPOINTING": "true",
            "ACCELERATE_MIXED_PRECISION": "bf16",
        }
    )
    assert launch == EngineSettings(
        "fsdp2", "bf16", reshard=False, optimizer_on_host=True, weights_on_host=True, recompute=True
    )
    with pytest.raises(InputError) as error:
        check_engine(launch, config.Training(precision="fp32", optimizer=config.Muon()), ranks=2)
    for part in ("mixed_precision is bf16", "muon", "fsdp_activation_checkpointing is true"):
        assert part in str(error.value)


AGREEING: dict[str, Any] = {
    "train_batch_size": 64,
    "train_micro_batch_size_per_gpu": 16,
    "gradient_accumulation_steps": 1,
    "gradient_clipping": 1.0,
    "optimizer": "auto",
    "fp16": {"enabled": False},
    "bf16": {"enabled": "auto"},
}


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("train_batch_size", 32),
        ("train_micro_batch_size_per_gpu", 64),
        ("gradient_accumulation_steps", 2),
        ("gradient_clipping", 0.5),
        ("optimizer", {"type": "Adam"}),
        ("fp16", {"enabled": True}),
        ("bf16", {"enabled": True}),
    ],
)
def test_what_agrees_is_accepted_and_each_key_alone_may_contradict(key: str, other: object) -> None:
    def said(settings: dict[str, Any]) -> str:
        recipe = config.Training(batch_size=64, ranks=4)
        try:
            check_engine(EngineSettings("zero2", deepspeed=settings), recipe, ranks=4)
        except InputError as error:
            return error.what
        return ""

    assert said(AGREEING) == said({**AGREEING, key: "auto" if key not in ("fp16", "bf16") else {}}) == ""
    _, *contradictions = said({**AGREEING, key: other}).splitlines()
    assert [line.split()[0].split(".")[0] for line in contradictions] == [key]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], "no JSON object"),
        ({"zero_optimization": True}, "zero_optimization is True"),
        ({"zero_optimization": "auto"}, "stage is 'auto'"),
        ({"zero_optimization": {"stage": 2}, "fp16": True}, "fp16 is True"),
        ({"zero_optimization": {"stage": 2}, "fp16": None}, "fp16 is None"),
        ({"zero_optimization": {"stage": 2}, "optimizer": "adamw"}, "optimizer is 'adamw'"),
    ],
)
def test_a_deepspeed_file_of_another_form_is_refused(settings: object, said: str, tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps(settings))
    environment = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)}
    with pytest.raises(InputError, match=said) as error:
        EngineSettings.from_environment(environment)
    assert str(file) in str(error.value)


def test_auto_leaves_sections_to_the_run_and_gradients_travel_in_fp32() -> None:
    settings = {"zero_optimization": {"stage": 2}, "bf16": "auto", "optimizer": "auto"}
    check_engine(EngineSettings("zero2", deepspeed=settings), config.Training(), ranks=4)
    with pytest.raises(InputError, match="communication_data_type is fp16"):
        check_engine(
            EngineSettings("zero2", deepspeed=settings | {"communication_data_type": "fp16"}),
            config.Training(),
            ranks=4,
        )


def test_other_launchers_files(tmp_path: Path) -> None:
    file, inner = tmp_path / "accelerate.yaml", tmp_path / "deepspeed.json"

    def read(zero: dict[str, Any]) -> EngineSettings:
        inner.write_text(json.dumps({"zero_optimization": zero}))
        file.write_text(
            f"distributed_type: DEEPSPEED\ndeepspeed_config: {{deepspeed_config_file: {inner}}}\n"
        )
        return EngineSettings.from_launcher_file(file)[0]

    assert read({"stage": 1}) == EngineSettings("zero1", bucket_elements=500_000_000, buckets=1), (
        "DeepSpeed's own"
    )
    assert read(
        {"stage": 3, "reduce_bucket_size": "auto", "stage3_max_live_parameters": 7}
    ) == EngineSettings("zero3", bucket_elements=500_000_000, live_elements=7)
    assert read(
        {"stage": 2, "contiguous_gradients": False, "offload_optimizer": {"device": "cpu"}}
    ) == EngineSettings("zero2", optimizer_on_host=True, bucket_elements=0, buckets=1)
    assert not read({"stage": 2, "offload_optimizer": {"device": "none"}}).optimizer_on_host
    file.write_text(
        "distributed_type: FSDP\nfsdp_config: {fsdp_version: 2, fsdp_offload_params: true, "
        "fsdp_reshard_after_forward: false}\n"
    )
    offloaded = EngineSettings("fsdp2", optimizer_on_host=True, weights_on_host=True, reshard=False)
    assert EngineSettings.from_launcher_file(file)[0] == offloaded


@pytest.mark.parametrize("content", ["a: [", "- 1\n", "distributed_type: FSDP\n"])
def test_files_that_are_no_launchers(content: str, tmp_path: Path) -> None:
    file = tmp_path / "accelerate.yaml"
    file.write_text(content)
    with pytest.raises(InputError):
        EngineSettings.from_launcher_file(file)
    with pytest.raises(InputError, match="cannot be read"):
        EngineSettings.from_launcher_file(tmp_path / "absent.yaml")
