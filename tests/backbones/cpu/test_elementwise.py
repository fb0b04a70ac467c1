"""The compiled elementwise functions beside their twins in torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reasoning_embedding.backbones.cpu import elementwise_native as native
from reasoning_embedding.backbones.cpu.elementwise import Kernels
from reasoning_embedding.backbones.cpu.elementwise_native import Native, native_kernels
from reasoning_embedding.backbones.cpu.elementwise_torch import Eager
from reasoning_embedding.backbones.cpu.layout import Layout
from tests.models import relative

LAYOUT = Layout.of(torch.tensor([0, 3, 8, 13, 13, 14]))
HEADS, SIZE = 3, 8
T, D = 14, HEADS * SIZE
EPS = 1e-3
Given = dict[str, Any]


def _compiled(dtype: torch.dtype) -> Native:
    kernels = native_kernels(dtype)
    if kernels is None:
        pytest.skip("no C++ compiler here")
    return kernels


def _given(dtype: torch.dtype) -> Given:
    torch.manual_seed(0)
    half = torch.randn(T, SIZE // 2)
    return {
        "x": torch.randn(T, D),
        "branch": torch.randn(T, D).to(dtype),
        "up": torch.randn(T, D).to(dtype),
        "wide": (3 * torch.randn(T, 3 * D)).to(dtype),
        "gain": torch.rand(D) + 0.5,
        "head_gain": torch.rand(SIZE) + 0.5,
        "rotary": tuple(torch.cat([angle(half)] * 2, 1) for angle in (torch.cos, torch.sin)),
        "scores": (5 * torch.randn(6, 1500)).to(dtype),
        "weights": torch.randn(6, 1500).softmax(-1).to(dtype),
    }


def _from_heads(kernels: Kernels, g: Given, *norm: Any) -> list[Tensor | None]:
    out = torch.zeros_like(g["wide"])
    part = out[:, D : 2 * D]  # rows lie further apart than they are long
    return [kernels.from_heads(g["up"], LAYOUT, SIZE, part, g["wide"][:, :D], *norm), out]


FUNCTIONS: dict[str, Callable[[Kernels, Given], Any]] = {
    "add_norm": lambda k, g: k.add_norm(g["x"], g["branch"], g["gain"], EPS, keep=True),
    "norm": lambda k, g: k.add_norm(g["x"], None, g["gain"], EPS, keep=False),
    "norm_backward": lambda k, g: k.norm_backward(g["x"], None, g["gain"], EPS, g["up"], g["x"].flip(0)),
    "add_norm_backward": lambda k, g: k.norm_backward(
        g["x"], g["branch"], g["gain"], EPS, g["up"], g["x"].flip(0)
    ),
    "to_heads": lambda k, g: k.to_heads(g["wide"][:, D : 2 * D], LAYOUT, SIZE),
    "rotate": lambda k, g: k.to_heads(g["wide"][:, :D], LAYOUT, SIZE, None, EPS, g["rotary"]),
    "norm_rotate": lambda k, g: k.to_heads(g["wide"][:, :D], LAYOUT, SIZE, g["head_gain"], EPS, g["rotary"]),
    "from_heads": lambda k, g: _from_heads(k, g),
    "rotate_backward": lambda k, g: _from_heads(k, g, None, EPS, g["rotary"]),
    "norm_rotate_backward": lambda k, g: _from_heads(k, g, g["head_gain"], EPS, g["rotary"]),
    "swiglu": lambda k, g: k.swiglu(g["wide"][:, : 2 * D].contiguous()),
    "swiglu_backward": lambda k, g: k.swiglu_backward(g["wide"][:, : 2 * D].contiguous(), g["up"]),
    "softmax": lambda k, g: k.softmax(g["scores"].clone(), 0.3),
    "softmax_of_few": lambda k, g: k.softmax(g["scores"][:, :37].contiguous(), 0.3),
    "softmax_backward": lambda k, g: k.softmax_backward(g["weights"], g["scores"].clone(), 0.3),
}


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Generator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def _tensors(result: Any) -> list[Tensor]:
    return [part for part in (result if isinstance(result, (tuple, list)) else [result]) if part is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiled_equals_torch(name: str, dtype: torch.dtype, threads: int) -> None:
    kernels, given = _compiled(dtype), _given(dtype)
    found, wanted = (_tensors(FUNCTIONS[name](k, given)) for k in (kernels, Eager(dtype)))
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        # Sums in another order move a value across the edge of rounding to bfloat16 now and then.
        assert relative(ours.float(), theirs.float()) < (1e-6 if ours.dtype == torch.float32 else 2e-3)
    given["x"], given["wide"] = given["x"].roll(1, 1), given["wide"].roll(1, 1)
    given["scores"], given["up"] = given["scores"].roll(1, 1), given["up"].roll(1, 1)
    other = _tensors(FUNCTIONS[name](kernels, given))
    assert relative(other[0].float(), found[0].float()) > 0.05, "the control: other input, other output"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extremes_stay_what_they_are(dtype: torch.dtype) -> None:
    kernels = _compiled(dtype)
    gate = torch.tensor([float("nan"), 1e30, -1e30, 100.0, -100.0, 0.0, -0.5, 3.0] * 4)
    opened = torch.cat([gate, torch.ones(32)])[None].to(dtype)
    torch.testing.assert_close(
        kernels.swiglu(opened), Eager(dtype).swiglu(opened), rtol=1e-2, atol=1e-6, equal_nan=True
    )
    scores = torch.tensor([[1e30, -1e30, 0.0], [-1e30, -1e30, -1e30], [float("nan"), 0.0, 0.0]]).to(dtype)
    found = kernels.softmax(scores.clone(), 1.0)
    assert found[0].tolist() == pytest.approx([1, 0, 0])
    assert found[1].tolist() == pytest.approx([1 / 3] * 3, rel=1e-2)
    assert bool(found[2].isnan().any())
    with pytest.raises(ValueError, match="5000"):
        kernels.softmax(torch.zeros(1, 5000, dtype=dtype), 1.0)


def test_it_is_built_once_for_a_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _compiled(torch.float32)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native_kernels.cache_clear()
    try:
        assert native_kernels(torch.float32) is not None
        (built,) = (tmp_path / "reasoning_embedding").iterdir()
        made = built.stat().st_mtime_ns
        native_kernels.cache_clear()
        assert native_kernels(torch.float32) is not None
        assert built.stat().st_mtime_ns == made
        assert native_kernels(torch.bfloat16) is not None
        assert len(list((tmp_path / "reasoning_embedding").iterdir())) == 2
    finally:
        native_kernels.cache_clear()


@pytest.mark.parametrize("compiler", ["/nowhere/c++", "false"])
def test_without_a_compiler_there_are_none(
    compiler: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    native_kernels.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, logger=native.__name__):
            assert native_kernels(torch.float32) is None
        assert "as transformers has them" in caplog.text
        assert native_kernels(torch.float64) is None
    finally:
        native_kernels.cache_clear()
