"""States come back bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.checkpoints.state import (
    load_state,
    read_state,
    save_state,
    verify_state,
    write_state,
)
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
    with pytest.raises(InputError, match="was changed after it was written"):
        load_state(run.state(3), model, optimizer)
    (run.state(3) / "state.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be used"):
        load_state(run.state(3), model, optimizer)


def _edit(file: Path, **changes: object) -> None:
    """Change a record; None takes a key away."""
    record = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))


def test_a_state_of_an_older_version_has_no_sums_and_one_of_today_cannot_lose_them(tmp_path: Path) -> None:
    model, optimizer = _trained()
    file = tmp_path / "state" / "state.json"

    def saved() -> None:
        save_state(tmp_path / "state", model, optimizer, parameters=True, step=3)

    saved()
    assert verify_state(tmp_path / "state")
    _edit(file, sha256=None, format=None, sums=None)
    assert not verify_state(tmp_path / "state")
    assert load_state(tmp_path / "state", model, optimizer) == {"step": 3}
    for change in ({"sums": None}, {"format": None}, {"format": 1}, {"param_groups": None}):
        saved()
        _edit(file, sha256=None, **change)
        with pytest.raises(InputError, match="lacks what every state has"):
            load_state(tmp_path / "state", model, optimizer)
    saved()
    _edit(file, step=4)
    with pytest.raises(InputError, match="was changed after it was written"):
        load_state(tmp_path / "state", model, optimizer)


def test_the_settings_of_another_optimizer_are_refused(tmp_path: Path) -> None:
    model, optimizer = _trained()
    save_state(tmp_path / "state", model, optimizer, parameters=True)
    same = torch.optim.AdamW(model.parameters(), lr=0.7, fused=True)
    load_state(tmp_path / "state", model, same)
    other = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.3, fused=True)
    with pytest.raises(InputError, match=r"its weight_decay is 0\.01, and the run's 0\.3"):
        load_state(tmp_path / "state", model, other)
    fewer = torch.optim.AdamW([model.weight], lr=0.1, fused=True)
    with pytest.raises(InputError, match="other parameters"):
        load_state(tmp_path / "state", model, fewer)


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
