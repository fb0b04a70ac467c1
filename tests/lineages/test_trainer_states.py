"""A trainer's state is taken up only where every byte is the one that was written."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from reasoning_embedding.lineages import fine_tune
from tests.factories import flip


def _save(folder: Path, step: int) -> Path:
    """A state as the trainer writes it; its files are bytes to whoever sums them up."""
    state = folder / f"checkpoint-{step}"
    state.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "rng_state.pth", "rng_state_1.pth"):
        (state / name).write_bytes(bytes(range(50)))
    (state / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    done: Any = SimpleNamespace(is_world_process_zero=True, global_step=step)
    where: Any = SimpleNamespace(output_dir=folder)
    fine_tune._SumStates().on_save(where, done, where)
    return state


def test_a_damaged_state_is_left_out_and_said(tmp_path: Path) -> None:
    states = [_save(tmp_path, step) for step in (9, 10)]
    said: list[str] = []
    assert fine_tune._last_state(tmp_path, said.append) == str(states[1])
    assert said == []
    for name in ("model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json", "sums.json"):
        flip(states[1] / name, 8)
        assert fine_tune._last_state(tmp_path, said.append) == str(states[0]), name
        assert said.pop().startswith(f"{states[1]} is left out: ")
        flip(states[1] / name, 8)
    (states[1] / "optimizer.pt").unlink()
    assert fine_tune._last_state(tmp_path, said.append) == str(states[0])
    (states[0] / "sums.json").unlink()  # an older version wrote none
    assert fine_tune._last_state(tmp_path, said.append) == str(states[0])
    (states[0] / "trainer_state.json").unlink()
    assert fine_tune._last_state(tmp_path, said.append) is None
