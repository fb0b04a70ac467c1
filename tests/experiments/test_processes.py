"""What a process used of the processor is its own, whatever else runs beside it."""

from __future__ import annotations

import sys
from pathlib import Path

from reasoning_embedding.experiments.processes import ProcessPool

BUSY = "import time; t = time.process_time()\nwhile time.process_time() - t < 0.6: pass"


def test_processor_seconds_are_those_of_the_process(tmp_path: Path) -> None:
    with ProcessPool(2, lambda line: None) as pool:
        pool.start("busy", [sys.executable, "-c", BUSY], tmp_path / "busy.log")
        pool.start("idle", [sys.executable, "-c", "import time; time.sleep(0.3)"], tmp_path / "idle.log")
        ended = {one.name: one for one in (pool.wait(), pool.wait())}
    assert 0.6 <= ended["busy"].processor_seconds < 3
    assert ended["idle"].processor_seconds < ended["busy"].processor_seconds - 0.3
