"""Joining a job: what the launcher's variables must say."""

from __future__ import annotations

import pytest
import torch

from reasoning_embedding.distributed import joined_world
from reasoning_embedding.errors import SetupError


@pytest.mark.parametrize("given", [{"RANK": "0"}, {"RANK": "0", "WORLD_SIZE": "two"}])
def test_a_half_told_launch_is_refused(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SetupError, match="WORLD_SIZE"), joined_world():
        pass


def test_a_process_that_was_given_no_rank_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SetupError, match="no RANK"), joined_world():
        pass
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined_world() as world:
        assert world.size == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_ranks_that_do_not_find_each_other_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(SetupError, match="did not find the others"), joined_world():
        pass
