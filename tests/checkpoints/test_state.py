"""States come back bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.checkpoints.state import load_state, read_state, save_state, write_state
from reasoning_embedding.errors import InputError


def _trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    for _ in range(3):
        model(torch.randn(4, 3)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def test_a_state_comes_back_bitwise(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    model, optimizer = _trained()
    save_state(run.state(3), model, optimizer, parameters=True, step=3)
    fresh = torch.nn.Linear(3, 2)
    other = torch.optim.AdamW(fresh.parameters(), lr=0.1, fused=True)
    assert load_state(run.state(3), fresh, other) == {"step": 3}
    for a, b in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)
        for name, value in optimizer.state[a].items():
            assert torch.equal(value, other.state[b][name])


def test_a_damaged_state_is_an_input_error(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    model, optimizer = _trained()
    save_state(run.state(3), model, optimizer, parameters=True, step=3)
    (run.state(3) / "state.safetensors").write_bytes(b"rubbish")
    with pytest.raises(InputError, match="cannot be used"):
        load_state(run.state(3), model, optimizer)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not list what is mapped")
def test_a_state_is_mapped_and_not_read(tmp_path: Path) -> None:
    moments = {"exp_avg": torch.rand(1000, 10), "exp_avg_sq": torch.rand(1000, 10)}
    write_state(tmp_path / "state", {"state": {0: moments}, "param_groups": []}, {"weight": torch.rand(9)})
    state, parameters, _ = read_state(tmp_path / "state")
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    file = str(tmp_path / "state" / "state.safetensors")
    mapped = [[int(end, 16) for end in words[0].split("-")] for words in lines if words[-1] == file]
    for value in (*state["state"][0].values(), *parameters.values()):
        assert any(begin <= value.data_ptr() < end for begin, end in mapped)
    copy = state["state"][0]["exp_avg"].clone()
    assert not any(begin <= copy.data_ptr() < end for begin, end in mapped), "the control"
