"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from reasoning_embedding import files
from reasoning_embedding.cli._app import handled
from reasoning_embedding.errors import InputError, SetupError
from reasoning_embedding.files import (
    atomic_file,
    atomic_folder,
    atomic_write,
    full_disk,
    make_folder,
    remove_folder,
    require_space,
    size_of,
    write_json,
)
from tests.processes import Forked


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


def _write(final: Path, content: str) -> None:
    with atomic_folder(final) as folder:
        (folder / "part").write_text(content)


def _moments_without(final: Path) -> int:
    """Replace a folder many times and count the moments at which nothing stood in its place."""
    _write(final, "0")
    missing, stop = 0, threading.Event()

    def look() -> None:
        nonlocal missing
        while not stop.is_set():
            missing += not final.exists()

    watcher = threading.Thread(target=look)
    watcher.start()
    for index in range(60):
        _write(final, str(index))
    stop.set()
    watcher.join()
    assert (final / "part").read_text() == "59"
    assert list(final.parent.iterdir()) == [final]
    return missing


def _cannot_exchange(one: Path, other: Path) -> bool:
    return False


def _slowly(rename: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
    """A rename after which others have time to look."""

    def renamed(self: Path, target: Path) -> Path:
        made = rename(self, target)
        threading.Event().wait(0.002)
        return made

    return renamed


def test_a_folder_is_replaced_without_a_moment_of_absence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "probe" / "one", "1")
    _write(tmp_path / "probe" / "two", "2")
    if not files._exchange(tmp_path / "probe" / "one", tmp_path / "probe" / "two"):
        pytest.skip("this file system cannot exchange two folders")
    monkeypatch.setattr(Path, "rename", _slowly(Path.rename))
    assert _moments_without(tmp_path / "a" / "model") == 0
    monkeypatch.setattr(files, "_exchange", _cannot_exchange)
    assert _moments_without(tmp_path / "b" / "model") > 0, "the control: two renames leave a gap"


@pytest.mark.parametrize("renames", [1, 2, 3])
def test_where_folders_cannot_be_exchanged_a_kill_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    monkeypatch.setattr(files, "_exchange", _cannot_exchange)
    final = tmp_path / "model"
    _write(final, "old")
    rename = Path.rename
    left = renames

    def killed(self: Path, target: Path) -> Path:
        nonlocal left
        made = rename(self, target)
        left -= 1
        if not left:
            os._exit(9)
        return made

    def replace() -> None:
        Path.rename = killed  # ty: ignore[invalid-assignment]
        _write(final, "new")

    assert Forked(replace).wait() == 9
    with pytest.raises(RuntimeError):
        _write_half(final, "half")
    assert (final / "part").read_text() == ("old" if renames == 1 else "new")
    _write(final, "newest")
    assert (final / "part").read_text() == "newest"
    assert list(tmp_path.iterdir()) == [final]


def test_what_was_removed_does_not_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tmp_path / "model"
    _write(final, "old")
    monkeypatch.setattr(files.shutil, "rmtree", lambda *_, **__: None)  # killed before anything is deleted
    remove_folder(final)
    monkeypatch.undo()
    with pytest.raises(RuntimeError):
        _write_half(final, "half")
    assert not final.exists()


def test_inner_folders_and_parents_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    sync = files._sync

    def noted(path: Path) -> None:
        synced.append(path.relative_to(tmp_path).as_posix())
        sync(path)

    monkeypatch.setattr(files, "_sync", noted)
    with atomic_folder(tmp_path / "runs" / "a" / "model") as folder:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text("{}")
    made = "runs/a/.model.partial"
    assert set(synced) == {
        ".", "runs", "runs/a", made, f"{made}/1_Pooling", f"{made}/1_Pooling/config.json",
    }  # fmt: skip
    assert synced[-1] == "runs/a", "the name last"
    synced.clear()
    atomic_write(tmp_path / "logs" / "x.txt", "x")
    assert synced == [".", "logs/.x.txt.partial", "logs"]
    synced.clear()
    make_folder(tmp_path / "logs")
    assert synced == []


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("x" * 200_000),
    "safetensors": lambda path: save_file({"w": torch.zeros(50_000)}, path),
    "numpy": lambda path: np.save(path.open("wb"), np.zeros(50_000)),
    "parquet": lambda path: pq.write_table(
        pa.table({"x": np.random.default_rng(0).random(50_000)}), path, compression="none"
    ),
    "copy": lambda path: shutil.copyfile(torch.__file__.replace("__init__", "_tensor"), path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_that_cannot_grow_is_no_traceback_whoever_writes_it(tmp_path: Path, writer: str) -> None:
    """A limit on the size of files refuses the write itself, as a full disk does."""
    target = tmp_path / "model" / "file"

    def limited(explained: bool) -> Callable[[], None]:
        def job() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
            with handled():
                if explained:
                    with atomic_file(target) as partial:
                        WRITERS[writer](partial)
                else:
                    WRITERS[writer](tmp_path / "bare")

        return job

    for explained in (True, False):
        child = Forked(limited(explained), said := tmp_path / f"said-{explained}")
        assert child.wait() == 3, said.read_text()
        text = said.read_text()
        assert text.startswith("error: ")
        assert "-> " in text
        assert "Traceback" not in text
    assert list(target.parent.iterdir()) == []
    Forked(lambda: WRITERS[writer](target)).wait()
    assert target.stat().st_size > 10_000, "the control: without a limit it is written"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (OSError("50000 requested and 1234 written"), True),
        (RuntimeError("3 GPUs requested and 1 written down"), False),
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("no space left in the vocabulary"), False),
    ],
)
def test_a_full_disk_is_known_by_whatever_tells_of_it(error: Exception, told: bool) -> None:
    assert (full_disk(error) is not None) == told
    caused = RuntimeError("while saving")
    caused.__cause__ = error
    assert (full_disk(caused) is not None) == told


def test_work_the_disk_has_no_room_for_is_refused_before(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    require_space(tmp_path / "not" / "there", free // 2, "a checkpoint")
    with pytest.raises(SetupError, match=r"[GT]B free, and a checkpoint needs") as caught:
        require_space(tmp_path / "not" / "there", free * 2, "a checkpoint")
    assert caught.value.exit_code == 3
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x").write_bytes(b"12345")
    (tmp_path / "y").write_bytes(b"123")
    assert (size_of(tmp_path), size_of(tmp_path / "y")) == (8, 3)


@pytest.mark.parametrize("kind", ["object", "line"])
def test_every_bit_of_a_record_counts(tmp_path: Path, kind: str) -> None:
    """The names of its sums too: a record that lost its sum that way would be one of an older version."""
    path, value = tmp_path / "record.json", {"step": 3, "hash": "0" * 64, "name": "a", "scores": {"t": 0.25}}
    if kind == "object":
        files.write_json(path, value, summed=True)
    else:
        path.write_text(files.json_line({**value, "crc": "01234567"}))
    content = path.read_bytes()

    def found() -> object:
        return files.read_json(path) if kind == "object" else files.read_json_lines(path)

    whole, refused = found(), 0
    for place in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            try:
                now = found()
            except InputError:
                refused += 1
            else:
                # White space, or the end of the last line: a line that is not ended counts as cut off.
                assert now in (whole, []), bytes(changed)
    assert refused > 0.9 * 8 * len(content)
