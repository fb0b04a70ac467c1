"""What a record of a benchmark says beside its figures: when, by which command, with what, on what."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """Return command, date, versions, hardware and how busy the machine is."""
    from reasoning_embedding.checkpoints.provenance import versions

    return {
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "hardware": hardware(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def hardware() -> dict[str, Any]:
    """Return what speed depends on: processor and its vectors, cores, threads and, where there is one, GPU."""
    import torch

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        rows = [row for row in info.read_text().splitlines() if row.startswith("model name")]
        name = rows[0].partition(":")[2].strip() if rows else name
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": name,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }
