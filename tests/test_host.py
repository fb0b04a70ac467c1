"""Memory that a container or a job scheduler leaves to a process."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from reasoning_embedding.host import host_memory, process_memory

GIB = 2**30


def _group(folder: Path, version: int, limit: int | str, usage: int, cache: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if version == 2:
        names, statistic = ("memory.max", "memory.current"), "inactive_file"
    else:
        names, statistic = ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"
    for name, value in zip(names, (limit, usage), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{statistic} {cache}\n")


def _machine(root: Path, *lines: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("\n".join(lines) + "\n")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    class Machine:
        available, total = 20 * GIB, 24 * GIB

    monkeypatch.setattr(psutil, "virtual_memory", Machine)


def test_without_a_limit_the_machine_decides(tmp_path: Path) -> None:
    assert host_memory(tmp_path).available == 20 * GIB, "no control groups at all"
    _machine(tmp_path, "0::/user")
    _group(tmp_path / "sys/fs/cgroup/user", 2, "max", 3 * GIB)
    found = host_memory(tmp_path)
    assert (found.available, found.total, found.limited) == (20 * GIB, 24 * GIB, False)


@pytest.mark.parametrize(
    ("version", "line", "mount"),
    [(2, "0::/", "sys/fs/cgroup"), (1, "4:cpu,memory:/", "sys/fs/cgroup/memory")],
)
def test_a_limit_less_what_is_used_and_not_cache_is_left(
    tmp_path: Path, version: int, line: str, mount: str
) -> None:
    _machine(tmp_path, "7:cpuset:/elsewhere", line)
    _group(tmp_path / mount, version, 8 * GIB, 5 * GIB, cache=2 * GIB)
    found = host_memory(tmp_path)
    assert (found.available, found.total, found.limited) == (5 * GIB, 8 * GIB, True)
    _group(tmp_path / mount, version, 8 * GIB, 9 * GIB)
    assert host_memory(tmp_path).available == 0


def test_the_tightest_of_a_job_and_all_above_it_counts(tmp_path: Path) -> None:
    _machine(tmp_path, "0::/slurm/job_7/step_0")
    root = tmp_path / "sys/fs/cgroup"
    _group(root / "slurm", 2, "max", 12 * GIB)
    _group(root / "slurm/job_7", 2, 6 * GIB, 4 * GIB)
    _group(root / "slurm/job_7/step_0", 2, 16 * GIB, 4 * GIB)
    assert host_memory(tmp_path).available == 2 * GIB


def test_a_containers_own_group_is_the_mount(tmp_path: Path) -> None:
    _machine(tmp_path, "9:memory:/docker/0123")  # the machine's path, which the container does not see
    _group(tmp_path / "sys/fs/cgroup/memory", 1, 4 * GIB, 1 * GIB)
    assert host_memory(tmp_path).available == 3 * GIB


def test_a_limit_beyond_the_machine_is_none(tmp_path: Path) -> None:
    _machine(tmp_path, "4:memory:/")
    _group(tmp_path / "sys/fs/cgroup/memory", 1, 9223372036854771712, 23 * GIB)
    assert host_memory(tmp_path).available == 20 * GIB


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
def test_the_memory_of_this_process_is_told_in_bytes() -> None:
    held, most = process_memory("VmRSS"), process_memory("VmHWM")
    assert held is not None
    assert most is not None
    assert 2**20 < held <= most


def test_a_system_that_does_not_tell_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(self: Path, *rest: object, **options: object) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", absent)
    assert process_memory("VmRSS") is None
