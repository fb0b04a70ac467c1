"""Which steps are saved, which states are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasoning_embedding import config, files
from reasoning_embedding.checkpoints import RunFolder, checkpoint_steps
from reasoning_embedding.checkpoints.retention import prune_states
from reasoning_embedding.checkpoints.state import write_state


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


def test_the_newest_states_are_kept(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (1, 2, 4):
        write_state(run.state(step), {"state": {}, "param_groups": []}, {}, step=step)
        run.checkpoint(step).mkdir(parents=True)
    prune_states(run, 1, newest=2)
    assert run.state_steps() == [2, 4], "a later one is not counted"
    prune_states(run, 2, newest=4)
    assert run.state_steps() == [2, 4]
    (run.checkpoints / ".step-000008.partial").mkdir()
    assert run.steps() == [1, 2, 4]
    assert json.loads((run.state(2) / "state.json").read_text())["step"] == 2


def test_a_process_killed_while_it_prunes_leaves_no_half_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    for step in (1, 2, 4):
        write_state(run.state(step), {"state": {}, "param_groups": []}, {}, step=step)
    with monkeypatch.context() as patch:

        def killed(folder: Path, **_: object) -> None:
            if folder.exists():
                next(folder.iterdir()).unlink()
                raise KeyboardInterrupt

        patch.setattr(files.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prune_states(run, 2, newest=4)
    assert run.state_steps() == [2, 4]
    prune_states(run, 2, newest=4)
    assert sorted(path.name for path in run.states.iterdir()) == ["step-000002", "step-000004"]
