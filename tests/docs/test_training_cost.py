"""The page on a step's cost lists what the code knows."""

import re
from pathlib import Path

from reasoning_embedding.planning.devices import DEVICES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training-cost.md"


def test_the_page_lists_every_device():
    row = r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([^|]+) \|$"
    found = {name: cells for name, *cells in re.findall(row, PAGE.read_text(), re.MULTILINE)}
    assert found == {
        name: [f"{d.tflops:g}", f"{d.memory_gb:g}", f"{d.bandwidth:g}", f"{d.host:g}", d.source]
        for name, d in DEVICES.items()
    }
