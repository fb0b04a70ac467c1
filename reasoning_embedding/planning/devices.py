"""What accelerators can do: their published peaks, by the name that torch gives them."""

from __future__ import annotations

from dataclasses import dataclass

from reasoning_embedding.config.reading.suggestions import did_you_mean
from reasoning_embedding.errors import InputError


@dataclass(frozen=True)
class Device:
    """Published peaks of one accelerator, as torch sees it.

    Attributes
    ----------
    tflops : float
        Dense bf16 matrix operations with float32 sums, 10^12 a second.
    memory_gb : float
        Device memory, 10^9 bytes.
    bandwidth : float
        Of that memory, 10^12 bytes a second.
    link : float
        To the other devices of the node, one direction, 10^9 bytes a second.
    host : float
        To host memory, one direction, 10^9 bytes a second: 16 lanes of PCIe 4.0 are 32, of PCIe 5.0 64.
    source : str
        Where the figures stand.
    """

    tflops: float
    memory_gb: float
    bandwidth: float
    link: float
    host: float
    source: str


#: By the part of ``torch.cuda.get_device_name()`` that tells devices apart; the longest that fits counts.
#: Of GH200 and GB200 the host's link is NVLink-C2C, 450 GB/s one way for each Grace: one GPU has it alone, or two share
#: it. The two dies of an MI250X are counted with half of its 16 lanes each.
DEVICES = {
    "A10": Device(125, 24, 0.6, 32, 32, "NVIDIA A10 data sheet"),
    "A10G": Device(70, 24, 0.6, 32, 32, "NVIDIA A10G product brief, as in AWS G5"),
    "A100": Device(312, 80, 2.039, 300, 32, "NVIDIA A100 80GB data sheet"),
    "A100-PCIE-40GB": Device(312, 40, 1.555, 32, 32, "NVIDIA A100 data sheet"),
    "A100-SXM4-40GB": Device(312, 40, 1.555, 300, 32, "NVIDIA A100 data sheet"),
    "A100 80GB PCIe": Device(312, 80, 1.935, 32, 32, "NVIDIA A100 80GB data sheet"),
    "B200": Device(2250, 180, 7.7, 900, 64, "NVIDIA DGX B200 data sheet"),
    "GB200": Device(2500, 186, 8.0, 900, 225, "NVIDIA GB200 NVL72 data sheet"),
    "H100": Device(989, 80, 3.35, 450, 64, "NVIDIA H100 data sheet, SXM"),
    "H100 PCIe": Device(756, 80, 2.0, 64, 64, "NVIDIA H100 PCIe product brief"),
    "H100 NVL": Device(835, 94, 3.9, 300, 64, "NVIDIA H100 data sheet, NVL"),
    "H200": Device(989, 141, 4.8, 450, 64, "NVIDIA H200 data sheet, SXM"),
    "H200 NVL": Device(835, 141, 4.8, 450, 64, "NVIDIA H200 data sheet, NVL"),
    "GH200": Device(989, 96, 4.0, 450, 450, "NVIDIA GH200 data sheet"),
    "L4": Device(121, 24, 0.3, 32, 32, "NVIDIA L4 data sheet"),
    "L40S": Device(362, 48, 0.864, 32, 32, "NVIDIA L40S data sheet"),
    "RTX 3090": Device(71, 24, 0.936, 32, 32, "NVIDIA GA102 architecture white paper"),
    "RTX 4090": Device(165.2, 24, 1.008, 32, 32, "NVIDIA Ada architecture white paper"),
    "RTX 5090": Device(209.5, 32, 1.792, 64, 64, "NVIDIA RTX Blackwell architecture white paper"),
    "MI250X": Device(191.5, 64, 1.6, 200, 16, "AMD MI250X data sheet; one of its two dies"),
    "MI300X": Device(1307.4, 192, 5.3, 448, 64, "AMD MI300X data sheet"),
    "MI325X": Device(1307.4, 256, 6.0, 448, 64, "AMD MI325X data sheet"),
    "MI355X": Device(2516, 288, 8.0, 538, 64, "AMD MI355X data sheet"),
}


def find_device(name: str) -> Device | None:
    """Return the published peaks of a device by the name it reports, or None for an unknown one.

    Examples
    --------
    >>> find_device("NVIDIA H100 80GB HBM3").tflops
    989
    """
    words = f" {name.lower().replace('-', ' ')} "
    fitting = [key for key in DEVICES if f" {key.lower().replace('-', ' ')} " in words]
    return DEVICES[max(fitting, key=len)] if fitting else None


def gpu_named(name: str) -> Device:
    """Return the peaks of a GPU.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    device = find_device(name)
    if device is None:
        raise InputError(
            f"no GPU {name!r}{did_you_mean(name, DEVICES)}",
            where="--gpu",
            todo=f"one of {', '.join(DEVICES)}",
        )
    return device
