"""Members of a seed band that lie elsewhere are looked at before they are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.checkpoints.references import ResolvedModel
from reasoning_embedding.config import resolved_json
from reasoning_embedding.errors import InputError
from reasoning_embedding.experiments.comparisons import check_seed_pair
from reasoning_embedding.files import write_json
from tests.factories import run_config


def run(folder: Path, **sections: object) -> ResolvedModel:
    """A checkpoint of a run with these settings; its weights are not looked at."""
    settings = run_config(**sections)
    place = RunFolder(folder)
    checkpoint = place.checkpoints / "step-000002"
    checkpoint.mkdir(parents=True)
    write_json(place.config_json, resolved_json(settings))
    return ResolvedModel(f"{folder}@2", checkpoint)


def test_other_runs_differ_in_their_seed_only(tmp_path: Path) -> None:
    said: list[str] = []
    first = run(tmp_path / "a", seed=1, name="a")
    check_seed_pair("p", first, run(tmp_path / "b", seed=2, name="b"), said.append)
    assert said == []
    with pytest.raises(InputError, match=r"the two differ in loss\.temperature") as error:
        check_seed_pair("p", first, run(tmp_path / "c", seed=2, loss={"temperature": 0.5}), said.append)
    assert "pair p of the seed band" in str(error.value)


def test_what_cannot_be_seen_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    model = tmp_path / "model"
    model.mkdir()
    check_seed_pair("p", run(tmp_path / "a", seed=1), ResolvedModel(str(model), model), said.append)
    assert said == [
        "seed band: whether the members of p differ in the seed only cannot be seen from their folders"
    ]
