"""Peaks of accelerators, by the name that they report."""

from __future__ import annotations

import pytest

from reasoning_embedding.planning.devices import DEVICES, find_device


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("AMD Instinct MI300X", 1307.4),
        ("NVIDIA GB200", 2500),
        ("Some CPU", None),
    ],
)
def test_devices_by_the_name_they_report(name: str, tflops: float | None) -> None:
    device = find_device(name)
    assert (device.tflops if device else None) == tflops


def test_every_peak_names_its_source_and_is_plausible() -> None:
    for name, device in DEVICES.items():
        assert device.source, name
        assert 10 < device.tflops / device.bandwidth < 700, name
