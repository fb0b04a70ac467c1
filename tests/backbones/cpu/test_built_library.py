"""Compiled libraries: only this user's own and whole ones are loaded, and none before it was tried apart."""

from __future__ import annotations

import ctypes
import faulthandler
import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reasoning_embedding.backbones.cpu import built_library, elementwise_native
from reasoning_embedding.backbones.cpu.built_library import load_library
from reasoning_embedding.backbones.cpu.elementwise_native import native_kernels
from tests.processes import Forked

COMPILER = shutil.which("c++") or shutil.which("g++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")
NAME = "answers-0123"
#: Writes its name into the file $RAN when it is loaded: whoever loads it runs its code.
SOURCE = """
#include <stdio.h>
#include <stdlib.h>
__attribute__((constructor)) static void ran() {
    const char *path = getenv("RAN");
    if (path) { FILE *file = fopen(path, "a"); fputs(WHO "\\n", file); fclose(file); }
}
extern "C" int answer() { return %s; }
"""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a compiler makes of an honest source, another's, and one that does not fit this machine."""
    folder = tmp_path_factory.mktemp("libraries")
    made = {}
    for who, body in {"ours": "42", "theirs": "13", "crashing": "(__builtin_trap(), 1)"}.items():
        source = folder / f"{who}.cpp"
        source.write_text(SOURCE % body)
        words = [str(COMPILER), f'-DWHO="{who}"', "-shared", "-fPIC", str(source), "-o", str(folder / who)]
        subprocess.run(words, check=True)
        made[who] = (folder / who).read_bytes()
    return made


class Workshop:
    """Builds by writing bytes that are at hand, and counts builds and trials."""

    def __init__(self, content: bytes) -> None:
        self.content, self.built, self.tried = content, 0, 0

    def build(self, path: Path) -> None:
        self.built += 1
        path.write_bytes(self.content)

    def trial(self, path: Path) -> int:
        self.tried += 1
        code = f"import ctypes,sys; sys.exit(ctypes.CDLL({str(path)!r}).answer() not in (13, 42))"
        quiet = {key: value for key, value in os.environ.items() if key != "RAN"}
        return subprocess.run([sys.executable, "-I", "-S", "-c", code], env=quiet, check=False).returncode

    def answer(self) -> int:
        return load_library(NAME, self.build, self.trial).answer()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    return tmp_path / "cache" / "reasoning_embedding"


def ran(cache: Path) -> str:
    file = cache.parent.parent / "ran"
    return file.read_text() if file.exists() else ""


def plant(cache: Path, content: bytes) -> Path:
    """Put a library there under the name that it would be looked for."""
    path = cache / f"{NAME}-{hashlib.sha256(content).hexdigest()}.so"
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_it_is_built_and_tried_once_and_kept_for_this_user_alone(
    libraries: dict[str, bytes], cache: Path
) -> None:
    workshop = Workshop(libraries["ours"])
    assert [workshop.answer(), workshop.answer()] == [42, 42]
    assert (workshop.built, workshop.tried) == (1, 1)
    (file,) = cache.iterdir()
    assert (cache.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
    assert hashlib.sha256(file.read_bytes()).hexdigest() in file.name


def test_two_libraries_are_not_taken_for_one_another(libraries: dict[str, bytes], cache: Path) -> None:
    ours, theirs = Workshop(libraries["ours"]), Workshop(libraries["theirs"])
    one = load_library("one", ours.build, ours.trial)
    two = load_library("two", theirs.build, theirs.trial)
    assert (one.answer(), two.answer(), one.answer()) == (42, 13, 42)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "cut by a page": lambda content: content[:-4096],
    "a flipped byte": lambda content: content[:5000] + bytes([content[5000] ^ 0xFF]) + content[5001:],
    "text": lambda content: b"not a library\n",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_built_anew(
    libraries: dict[str, bytes], cache: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    Workshop(libraries["ours"]).answer()
    (file,) = cache.iterdir()
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    again = Workshop(libraries["ours"])
    assert again.answer() == 42
    assert again.built == 1
    assert "it is damaged" in caplog.text
    assert "built anew" in caplog.text
    assert [path.read_bytes() for path in cache.iterdir()] == [libraries["ours"]]


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_nothing_is_loaded_from_a_folder_that_others_may_write(
    libraries: dict[str, bytes], cache: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    cache.mkdir(parents=True)
    planted = plant(cache, libraries["theirs"])
    cache.chmod(mode)
    workshop = Workshop(libraries["ours"])
    assert workshop.answer() == 42
    assert "theirs" not in ran(cache)
    assert "others may write to it" in caplog.text
    assert list(cache.iterdir()) == [planted], "built for this process alone, and nothing left"
    cache.chmod(0o755)
    assert Workshop(libraries["ours"]).answer() == 13, "the control: of this user's own folder it is loaded"
    assert "theirs" in ran(cache)
    assert cache.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
@pytest.mark.parametrize("whose", ["folder", "file", "link"])
def test_nothing_of_another_user_is_loaded(
    libraries: dict[str, bytes], cache: Path, caplog: pytest.LogCaptureFixture, whose: str
) -> None:
    home = cache if whose != "link" else cache.parent / "elsewhere"
    home.mkdir(parents=True, mode=0o700)
    planted = plant(home, libraries["theirs"])
    if whose == "link":
        cache.symlink_to(home)
        os.lchown(cache, 12345, 12345)
    else:
        os.chown(cache if whose == "folder" else planted, 12345, 12345)
    assert Workshop(libraries["ours"]).answer() == 42
    assert "theirs" not in ran(cache)
    assert "belongs to another user" in caplog.text


def test_a_file_that_others_may_write_and_a_link_are_not_loaded(
    libraries: dict[str, bytes], cache: Path
) -> None:
    cache.mkdir(parents=True, mode=0o700)
    planted = plant(cache, libraries["theirs"])
    planted.chmod(0o666)
    assert Workshop(libraries["ours"]).answer() == 42
    assert not planted.exists()
    planted = plant(cache.parent, libraries["theirs"])
    (cache / f"other-{planted.stem.rpartition('-')[2]}.so").symlink_to(planted)
    workshop = Workshop(libraries["ours"])
    assert load_library("other", workshop.build, workshop.trial).answer() == 42
    assert "theirs" not in ran(cache)


@pytest.mark.parametrize("where", ["no home", "a file in the way"])
def test_without_a_cache_it_is_built_for_this_process_alone(
    libraries: dict[str, bytes],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(cache.parent.parent / "scratch"))
    scratch = cache.parent.parent / "scratch"
    scratch.mkdir()
    if where == "no home":

        def homeless() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", homeless)
    else:
        cache.parent.write_text("a file")
    workshop = Workshop(libraries["ours"])
    assert workshop.answer() == 42
    assert (workshop.built, workshop.tried) == (1, 1)
    assert "for this process alone" in caplog.text
    assert list(scratch.iterdir()) == []


def test_one_that_crashes_is_found_out_apart_and_remembered(libraries: dict[str, bytes], cache: Path) -> None:
    workshop = Workshop(libraries["crashing"])
    for _ in range(2):
        with pytest.raises(OSError, match=r"ends with SIG(ILL|TRAP|ABRT)"):
            workshop.answer()
    assert (workshop.built, workshop.tried) == (1, 1)
    (record,) = cache.iterdir()
    with pytest.raises(OSError, match=f"delete {record} to try again"):
        workshop.answer()
    record.unlink()
    assert Workshop(libraries["ours"]).answer() == 42
    bare = libraries["crashing"]

    def untried() -> None:
        faulthandler.disable()
        ctypes.CDLL(str(plant(cache, bare))).answer()

    assert Forked(untried).wait() in (-signal.SIGILL, -signal.SIGTRAP), (
        "the control: untried, it ends the process"
    )


def test_a_trial_that_did_not_come_to_its_end_is_tried_again(
    libraries: dict[str, bytes], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = Workshop(libraries["ours"])
    with pytest.raises(OSError, match="exit code -9"):
        load_library(NAME, workshop.build, lambda path: -signal.SIGKILL)
    assert list(cache.iterdir()) == []
    assert workshop.answer() == 42


WRONG_KERNELS = {
    "wrong numbers": ("over = 1 / sum", "over = 2 / sum", "computes wrong numbers"),
    "a crash": ("float over = 1 / sum;", "float over = 1 / sum; __builtin_trap();", "ends with SIG"),
}


@pytest.mark.parametrize("fault", WRONG_KERNELS)
def test_kernels_that_fail_their_trial_leave_the_layers_as_transformers_has_them(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    right, wrong, said = WRONG_KERNELS[fault]
    source = elementwise_native._SOURCE.read_text()
    assert right in source
    (tmp_path / "wrong.cpp").write_text(source.replace(right, wrong))
    monkeypatch.setattr(elementwise_native, "_SOURCE", tmp_path / "wrong.cpp")
    monkeypatch.setattr(
        elementwise_native, "_FLAGS", tuple(flag for flag in elementwise_native._FLAGS if flag != "-O3")
    )
    native_kernels.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert native_kernels(torch.bfloat16) is None
        assert said in caplog.text
        assert "as transformers has them" in caplog.text
    finally:
        native_kernels.cache_clear()


def test_the_warning_says_what_to_do(
    libraries: dict[str, bytes], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    with caplog.at_level(logging.WARNING, logger=built_library.__name__):
        Workshop(libraries["ours"]).answer()
    assert str(cache) in caplog.text
    assert "chmod 700" in caplog.text
