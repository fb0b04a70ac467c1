"""What a GPU would be asked to do, seen without one; ``test_gpu`` is what only a GPU can show."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

LAYERS = 2
HERE = Path(__file__).resolve().parent

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here"),
    pytest.mark.skipif(
        sys.platform != "linux" or shutil.which("g++") is None, reason="a GPU is put on paper by g++ on Linux"
    ),
]


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What happened in each case of cuda_on_paper.py, in order."""
    library = tmp_path_factory.mktemp("cuda") / "cuda_on_paper.so"
    torch_folder = Path(torch.__file__).parent
    libraries = str(torch_folder / "lib")
    subprocess.run(
        ["g++", "-std=c++20", "-shared", "-fPIC", str(HERE / "cuda_on_paper.cpp"), "-o", str(library),
         f"-I{torch_folder / 'include'}", f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-ltorch_cpu", "-lc10"],
        check=True,
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.gpu.cuda_on_paper"],
        cwd=HERE.parents[1],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _count(events: list[str]) -> tuple[int, int]:
    """Attention kernels, forward and backward; all must be in bfloat16."""
    kernels = Counter(event for event in events if "attn" in event)
    assert set(kernels) <= {"_varlen_attn bfloat16", "_varlen_attn_backward bfloat16"}
    return kernels["_varlen_attn bfloat16"], kernels["_varlen_attn_backward bfloat16"]


@pytest.mark.parametrize(
    ("case", "forwards"),
    [
        ("store", 1), ("replay", 2), ("layers", 2), ("selective", 1), ("offload", 2), ("Qwen3-0.6B", 1),
        ("gemma3_text", 1),
    ],
)  # fmt: skip
def test_a_step_attends_by_the_fused_kernel(events: dict[str, list[str]], case: str, forwards: int) -> None:
    packs = 3
    assert _count(events[case]) == (forwards * packs * LAYERS, packs * LAYERS), events[case]


@pytest.mark.parametrize("case", ["store", "replay", "layers", "selective", "Qwen3-0.6B"])
def test_a_step_is_queued_without_waiting(events: dict[str, list[str]], case: str) -> None:
    found = events[case]
    kernels = [place for place, event in enumerate(found) if "attn" in event]
    assert not {"copy", "read"} & set(found[kernels[0] : kernels[-1]])
    assert "read" not in found[: kernels[0]]


def test_what_a_step_reads_does_not_grow_with_its_packs(events: dict[str, list[str]]) -> None:
    few, many = (events[case] for case in ("store", "more packs"))
    assert _count(many)[0] > _count(few)[0]
    assert many.count("read") == few.count("read") > 0, "its loss and the gradient's norm"


def test_encoding_in_half_precision_attends_by_the_fused_kernel(events: dict[str, list[str]]) -> None:
    forward, backward = _count(events["encode"])
    assert forward >= LAYERS
    assert backward == 0
    assert "read" not in events["encode"]


def test_float32_is_attended_text_by_text(events: dict[str, list[str]]) -> None:
    assert _count(events["float32"]) == (0, 0)
    assert "read" in events["float32"], "where the texts begin"


def test_paper_refuses_what_a_gpu_would_refuse(events: dict[str, list[str]]) -> None:
    assert events["host"][-1].startswith("FakeTensorDeviceMismatchError")
