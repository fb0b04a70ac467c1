"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from reasoning_embedding import files
from reasoning_embedding.errors import SetupError
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

    monkeypatch.setattr(files.os, "fsync", fail)
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
