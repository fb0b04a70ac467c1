"""What a user asks to compute on is what is used, or an error says that this machine lacks it."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from reasoning_embedding.cli.main import app
from reasoning_embedding.distributed import chosen_device, joined_world
from reasoning_embedding.errors import SetupError
from reasoning_embedding.training import train
from tests.factories import run_config


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)


def test_auto_takes_a_gpu_and_cpu_does_not(one_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [chosen_device(name).type for name in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
    with joined_world(device="cpu") as world:
        assert world.device.type == "cpu"
    with pytest.raises(SetupError, match="local rank 1 has no GPU"):
        chosen_device("cuda", 1)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert [chosen_device(name).type for name in ("auto", "cuda")] == ["cpu", "cuda"]


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert chosen_device("auto") == torch.device("cpu")
    with pytest.raises(SetupError, match=r"device cpu or auto"):
        chosen_device(name)  # ty: ignore[invalid-argument-type]


def test_training_refuses_mps_before_any_work() -> None:
    with pytest.raises(SetupError, match="float64"):
        train(run_config(training={"device": "mps"}))


def test_the_option_reaches_the_verb(tiny_backbone, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "texts").write_text("one\ntwo\n")
    words = ["analyze", str(tiny_backbone), str(tiny_backbone), "--texts", "20", "--device"]
    asked = CliRunner().invoke(app, [*words, "cuda"])
    assert asked.exit_code == 3
    assert "no CUDA GPU answers on this machine" in asked.output
