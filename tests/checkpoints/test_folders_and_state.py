"""Atomic folders, content hashes, schedules and states."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding import files as atomic_module
from reasoning_embedding.checkpoints import (
    ExperimentFolder,
    RunFolder,
    checkpoint_steps,
    content_hash,
    read_provenance,
    write_provenance,
)
from reasoning_embedding.checkpoints.retention import newest_resumable, prune_states
from reasoning_embedding.checkpoints.state import load_state, read_state, save_state, write_state
from reasoning_embedding.errors import InputError, SetupError
from reasoning_embedding.files import atomic_folder, atomic_write, write_json


def _write_half(final: Path, content: str) -> None:
    with atomic_folder(final) as folder:
        (folder / "part").write_text(content)
        raise RuntimeError


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    final = tmp_path / "a" / "model"
    with pytest.raises(RuntimeError):
        _write_half(final, "half")
    assert not final.exists()
    assert list(final.parent.iterdir()) == []
    with atomic_folder(final) as folder:
        (folder / "part").write_text("whole")
        assert not final.exists()
    assert (final / "part").read_text() == "whole"


def test_a_failed_replacement_keeps_the_old_folder(tmp_path: Path) -> None:
    final = tmp_path / "model"
    with atomic_folder(final) as folder:
        (folder / "part").write_text("old")
    with pytest.raises(RuntimeError):
        _write_half(final, "new")
    assert (final / "part").read_text() == "old"
    with atomic_folder(final) as folder:
        (folder / "part").write_text("new")
    assert (final / "part").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "permission"), (errno.EROFS, "read-only")],
)
def test_disk_errors_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def fail(_: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(atomic_module.os, "fsync", fail)
    with pytest.raises(SetupError, match=words) as caught:
        atomic_write(tmp_path / "x.json", "1")
    assert caught.value.exit_code == 3
    assert not (tmp_path / "x.json").exists()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with (
        pytest.raises(SetupError, match="a file stands where a folder should be"),
        atomic_folder(tmp_path / "runs" / "x"),
    ):
        pass


def test_nan_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})


def _model_folder(path: Path) -> Path:
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "config.json").write_text("{}")
    return path


def test_content_hash_follows_content_not_place(tmp_path: Path) -> None:
    first, second = _model_folder(tmp_path / "a"), _model_folder(tmp_path / "b")
    assert content_hash(first) == content_hash(second)
    write_provenance(first, kind="test", parent=None, step=3)
    assert content_hash(first) == content_hash(second)
    record = read_provenance(first)
    assert record is not None
    assert record["content_hash"] == content_hash(first)
    assert record["step"] == 3
    (second / "model.safetensors").write_bytes(b"weighty")
    assert content_hash(first) != content_hash(second)


def test_an_empty_folder_has_no_content_hash(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model files"):
        content_hash(tmp_path)


@pytest.mark.parametrize(
    ("every", "log_spaced", "steps", "expected"),
    [
        (200, True, 782, [0, 1, 2, 4, 8, 16, 32, 64, 128, 200, 400, 600, 782]),
        (50, False, 100, [0, 50, 100]),
        (10, True, 3, [0, 1, 2, 3]),
    ],
)
def test_schedule(every: int, log_spaced: bool, steps: int, expected: list[int]) -> None:
    assert checkpoint_steps(config.Checkpoints(every=every, log_spaced=log_spaced), steps) == expected


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


def test_the_newest_states_are_kept_and_need_their_checkpoint(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    model, optimizer = _trained()
    for step in (1, 2, 4):
        save_state(run.state(step), model, optimizer, parameters=False, step=step)
        run.checkpoint(step).mkdir(parents=True)
    prune_states(run, 2)
    assert run.state_steps() == [2, 4]
    assert newest_resumable(run) == 4
    run.checkpoint(4).rmdir()
    assert newest_resumable(run) == 2
    (run.checkpoints / ".step-000008.partial").mkdir()
    assert run.steps() == [1, 2]
    assert json.loads((run.state(2) / "state.json").read_text())["step"] == 2


def test_a_process_killed_while_it_prunes_leaves_no_half_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    model, optimizer = _trained()
    for step in (1, 2, 4):
        save_state(run.state(step), model, optimizer, parameters=False, step=step)
    with monkeypatch.context() as patch:

        def killed(folder: Path, **_: object) -> None:
            if folder.exists():
                next(folder.iterdir()).unlink()
                raise KeyboardInterrupt

        patch.setattr(atomic_module.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prune_states(run, 2)
    assert run.state_steps() == [2, 4]
    prune_states(run, 2)
    assert sorted(path.name for path in run.states.iterdir()) == ["step-000002", "step-000004"]


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


def test_what_is_set_aside_never_takes_the_place_of_what_was(tmp_path: Path) -> None:
    folder = ExperimentFolder(tmp_path)
    places = []
    for _ in range(2):
        place = folder.aside(folder.run("a").path)
        place.mkdir(parents=True)
        places.append(place.relative_to(tmp_path).as_posix())
    assert places == ["set-aside/runs/a.1", "set-aside/runs/a.2"]


def test_folders_that_are_being_written_are_not_listed(tmp_path: Path) -> None:
    folder = ExperimentFolder(tmp_path)
    assert folder.run_names() == []
    for name in ("b", "a", ".c.partial"):
        folder.run(name).path.mkdir(parents=True)
    (folder.runs / "note.txt").touch()
    assert folder.run_names() == ["a", "b"]
