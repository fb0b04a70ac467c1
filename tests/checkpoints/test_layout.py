"""Where things lie."""

from __future__ import annotations

from pathlib import Path

from reasoning_embedding.checkpoints import ExperimentFolder


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
