"""What of the machine's memory this process may use."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Files of a control group: its limit, what it uses, and the statistics that hold its inactive page cache.
_VERSIONS = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


@dataclass(frozen=True)
class Memory:
    """Bytes.

    Attributes
    ----------
    available : int
        What may still be allocated.
    total : int
        The machine's memory, or less where a container or a job scheduler set a limit.
    limited : bool
        Whether a limit, not the machine, decides.
    """

    available: int
    total: int
    limited: bool


def host_memory(root: Path = Path("/")) -> Memory:
    """Return the memory that is left to this process.

    Containers and job schedulers (Docker, Kubernetes, SLURM) limit a control group, of version 1 or 2; what the
    machine has free says nothing there, and a process that goes beyond its limit is killed without a word. Every
    group above counts too; page cache that the kernel would give back counts as free.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` are.
    """
    machine = psutil.virtual_memory()
    available, total, limited = machine.available, machine.total, False
    for group, version in _groups(root):
        limit_file, usage_file, cache = _VERSIONS[version]
        limit, usage = _number(group / limit_file), _number(group / usage_file)
        if limit is None or usage is None or limit >= machine.total:
            continue
        free = max(limit - usage + _statistic(group / "memory.stat", cache), 0)
        limited |= free < available
        available, total = min(available, free), min(total, limit)
    return Memory(available, total, limited)


def process_memory(field: str) -> int | None:
    """Return bytes of this process by a field of Linux's ``/proc/self/status``; None where there is no such file.

    Parameters
    ----------
    field : str
        ``VmRSS`` (held now), ``VmHWM`` (held at most), ``RssAnon`` (of it anonymous), ``VmData`` (allocated).
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


@contextlib.contextmanager
def at_most(extra: int) -> Generator[None]:
    """Let this process allocate so many bytes more, and no more, within the block: allocations then fail.

    Where memory is limited, the kernel kills a process that goes beyond; one that is refused memory can say so. Only on
    Linux; elsewhere nothing is limited.
    """
    data = process_memory("VmData")
    if data is None:
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit = data + max(extra, 0)
    limits = [limit, *(bound for bound in before if bound != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _groups(root: Path) -> Iterator[tuple[Path, int]]:
    """Folders of this process's control group and all above it, with the version of the interface."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, version = root / "sys/fs/cgroup", 2
        elif "memory" in controllers.split(","):
            mount, version = root / "sys/fs/cgroup/memory", 1
        else:
            continue
        # Inside a container the path may be the machine's; the container's own group is then the mount itself.
        group = mount / path.strip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(mount):
                break
            yield folder, version


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # absent, or "max"
        return None


def _statistic(path: Path, name: str) -> int:
    try:
        pairs = dict(line.split() for line in path.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(pairs.get(name, 0))
