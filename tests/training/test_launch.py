"""What a launcher asks for, from accelerate's own files to an engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.distributed import World, start_world
from reasoning_embedding.errors import InputError, SetupError
from reasoning_embedding.training.checks import check_budget, check_launch
from reasoning_embedding.training.engines import Launch, read_launch

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
WANTED = {
    "1gpu": ("replicated", 1),
    "8gpu-ddp": ("replicated", 8),
    "8gpu-fsdp2": ("fsdp2", 8),
    "multi-node-fsdp2": ("fsdp2", 32),
    "8gpu-zero2": ("zero", 8),
    "8gpu-zero3-offload": ("zero", 8),
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
def test_every_launcher_file_asks_for_its_engine_and_contradicts_no_default_run(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    monkeypatch.chdir(ROOT)
    engine, ranks = WANTED[file.stem]
    loaded: Any = load_config_from_file(str(file))
    assert loaded.num_processes == ranks
    launch = read_launch(_environment(file)) if ranks > 1 else read_launch({})
    assert launch.engine == engine
    for precision in ("bf16", "fp32"):
        check_launch(launch, config.Training(precision=precision), World(0, ranks))
    if engine == "zero":
        offloaded = "offload_param" in launch.deepspeed["zero_optimization"]
        assert launch.deepspeed["zero_optimization"]["stage"] == (3 if offloaded else 2)
        assert ("offload" in file.stem) == offloaded
    if engine == "fsdp2":
        assert launch.reshard
        assert not launch.offload


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
        read_launch(environment)


@pytest.mark.parametrize("stage", [None, 0, 4, "2"])
def test_a_stage_there_is_not_is_refused(stage: object, tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": stage}} if stage is not None else {}))
    environment = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)}
    with pytest.raises(InputError, match=r"zero_optimization\.stage"):
        read_launch(environment)


def test_what_fsdp_is_asked_for_is_read() -> None:
    launch = read_launch(
        {
            "ACCELERATE_USE_FSDP": "true",
            "FSDP_VERSION": "2",
            "FSDP_RESHARD_AFTER_FORWARD": "false",
            "FSDP_OFFLOAD_PARAMS": "true",
            "FSDP_ACTIVATION_CHECKPOINTING": "true",
            "ACCELERATE_MIXED_PRECISION": "bf16",
        }
    )
    assert launch == Launch("fsdp2", "bf16", reshard=False, offload=True, recompute=True)
    with pytest.raises(InputError) as error:
        check_launch(launch, config.Training(precision="fp32", optimizer=config.Muon()), World(0, 2))
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
            check_launch(Launch("zero", deepspeed=settings), recipe, World(0, 4))
        except InputError as error:
            return error.what
        return ""

    assert said(AGREEING) == said({**AGREEING, key: "auto" if key not in ("fp16", "bf16") else {}}) == ""
    _, *contradictions = said({**AGREEING, key: other}).splitlines()
    assert [line.split()[0].split(".")[0] for line in contradictions] == [key]


def test_a_budget_below_the_longest_text_is_refused_with_the_one_it_takes() -> None:
    check_budget(np.array([3, 4]), 4)
    check_budget(np.array([], dtype=int), 4)
    with pytest.raises(InputError, match="2 of 3 texts") as error:
        check_budget(np.array([3, 5, 9]), 4)
    assert "at least 9" in str(error.value)


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
        read_launch(environment)
    assert str(file) in str(error.value)


def test_auto_leaves_sections_to_the_run_and_gradients_travel_in_fp32() -> None:
    settings = {"zero_optimization": {"stage": 2}, "bf16": "auto", "optimizer": "auto"}
    check_launch(Launch("zero", deepspeed=settings), config.Training(), World(0, 4))
    with pytest.raises(InputError, match="communication_data_type is fp16"):
        check_launch(
            Launch("zero", deepspeed=settings | {"communication_data_type": "fp16"}),
            config.Training(),
            World(0, 4),
        )


@pytest.mark.parametrize("given", [{"RANK": "0"}, {"RANK": "0", "WORLD_SIZE": "two"}])
def test_a_half_told_launch_is_refused(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SetupError, match="WORLD_SIZE"):
        start_world()


def test_a_process_that_was_given_no_rank_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SetupError, match="no RANK"):
        start_world()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert start_world().size == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_ranks_that_do_not_find_each_other_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(SetupError, match="did not find the others"):
        start_world()
