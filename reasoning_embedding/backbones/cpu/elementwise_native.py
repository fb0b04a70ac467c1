"""Build the elementwise kernels with this machine's C++ compiler, once, and call them."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reasoning_embedding.errors import SetupError

from .built_library import load_library
from .layout import Layout

_log = logging.getLogger(__name__)
_SOURCE = Path(__file__).with_name("elementwise.cpp")
_TRIAL = Path(__file__).with_name("trial.py")
#: Without them a comparison in a loop keeps it scalar; NaN and infinity stay what they are.
_MATH = ("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros")
_WIDE = ("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()
#: A row of attention weights lies on the stack of a kernel: packs with longer texts go through the stock layer.
LONGEST = 4096
_FLAGS = (f"-DLONGEST={LONGEST}", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", *_MATH, *_WIDE)
_DEFINED = {torch.float32: (), torch.bfloat16: ("-DHALF",)}
_SECONDS = 120


@cache
def native_kernels(dtype: torch.dtype) -> Native | None:
    """Return the kernels of a compute dtype, or None where they cannot be built or there are none.

    The library is kept in the user's cache, under a name made of its source, flags, compiler and processor; building
    takes seconds, loading none. See :func:`.built_library.load_library`.
    """
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if dtype not in _DEFINED or not compiler:
        return None
    try:
        return Native(_library(compiler, dtype), dtype)
    except (OSError, subprocess.SubprocessError, SetupError) as error:
        _log.warning("no fused kernels, layers run as transformers has them: %s", error)
        return None


def _library(compiler: str, dtype: torch.dtype) -> ctypes.CDLL:
    command = [*compiler.split(), *_FLAGS, *_DEFINED[dtype]]
    version = subprocess.run([*compiler.split(), "--version"], capture_output=True, check=True).stdout
    key = hashlib.sha256(b"\0".join([_SOURCE.read_bytes(), repr(command).encode(), version, _processor()]))

    def build(path: Path) -> None:
        words = [*command, str(_SOURCE), "-o", str(path)]
        subprocess.run(words, capture_output=True, check=True, timeout=_SECONDS)

    def trial(path: Path) -> int:
        words = [sys.executable, "-I", "-S", str(_TRIAL), str(path), str(dtype.itemsize)]
        return subprocess.run(words, capture_output=True, check=False, timeout=_SECONDS).returncode

    return load_library(f"elementwise-{key.hexdigest()[:16]}", build, trial)


def _processor() -> bytes:
    """What ``-march=native`` depends on."""
    information = Path("/proc/cpuinfo")
    lines = information.read_bytes().splitlines() if information.exists() else []
    return next((line for line in lines if line.startswith(b"flags")), platform.processor().encode())


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


class Native:
    """The functions of :class:`.elementwise_torch.Eager` by compiled code, for tensors on a CPU.

    Parameters
    ----------
    library : ctypes.CDLL
        The shared object built for `dtype`.
    dtype : torch.dtype
        Compute dtype.
    """

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self._library, self._dtype = library, dtype

    def _call(self, name: str, *arguments: Any) -> None:
        values = [
            ctypes.c_long(value)
            if isinstance(value, int)
            else ctypes.c_float(value)
            if isinstance(value, float)
            else ctypes.c_void_p(_address(value))
            for value in arguments
        ]
        getattr(self._library, name)(*values, ctypes.c_int(torch.get_num_threads()))

    def _sums(self, columns: int) -> Tensor:
        return torch.zeros(torch.get_num_threads(), columns)

    def add_norm(
        self, x: Tensor, branch: Tensor | None, gain: Tensor, eps: float, *, keep: bool
    ) -> tuple[Tensor | None, Tensor]:
        """See :meth:`.elementwise_torch.Eager.add_norm`."""
        total = torch.empty_like(x) if keep else None
        out = torch.empty(x.shape, dtype=self._dtype)
        self._call("add_norm", *x.shape, x, branch, gain, eps, total, out)
        return total, out

    def norm_backward(
        self,
        x: Tensor,
        branch: Tensor | None,
        gain: Tensor,
        eps: float,
        upstream: Tensor,
        residual: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`.elementwise_torch.Eager.norm_backward`."""
        out, by_gain = torch.empty_like(x), self._sums(x.shape[1])
        half = None if self._dtype == torch.float32 else torch.empty(x.shape, dtype=self._dtype)
        self._call("norm_backward", *x.shape, x, branch, gain, eps, upstream, residual, out, half, by_gain)
        return out, out if half is None else half, by_gain.sum(0)

    def to_heads(
        self,
        packed: Tensor,
        layout: Layout,
        size: int,
        gain: Tensor | None = None,
        eps: float = 0.0,
        rotary: tuple[Tensor, Tensor] | tuple[None, None] = (None, None),
    ) -> Tensor:
        """See :meth:`.elementwise_torch.Eager.to_heads`."""
        tokens, width = packed.shape
        out = torch.empty(tokens, width, dtype=self._dtype)
        self._call(
            "to_heads", tokens, width // size, size, packed, packed.stride(0),
            layout.start, layout.length, gain, float(eps), *rotary, out,
        )  # fmt: skip
        return out

    def from_heads(
        self,
        upstream: Tensor,
        layout: Layout,
        size: int,
        out: Tensor,
        packed: Tensor | None = None,
        gain: Tensor | None = None,
        eps: float = 0.0,
        rotary: tuple[Tensor, Tensor] | tuple[None, None] = (None, None),
    ) -> Tensor | None:
        """See :meth:`.elementwise_torch.Eager.from_heads`."""
        tokens, width = out.shape
        by_gain = None if gain is None else self._sums(size)
        self._call(
            "from_heads", tokens, width // size, size, upstream, layout.start, layout.length,
            packed, 0 if packed is None else packed.stride(0), gain, float(eps), *rotary,
            out, out.stride(0), by_gain,
        )  # fmt: skip
        return None if by_gain is None else by_gain.sum(0)

    def swiglu(self, opened: Tensor) -> Tensor:
        """See :meth:`.elementwise_torch.Eager.swiglu`."""
        rows, width = opened.shape
        out = opened.new_empty(rows, width // 2)
        self._call("swiglu", rows, width // 2, opened, out)
        return out

    def swiglu_backward(self, opened: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`.elementwise_torch.Eager.swiglu_backward`."""
        by_opened, out = torch.empty_like(opened), torch.empty_like(upstream)
        self._call("swiglu_backward", *upstream.shape, opened, upstream, by_opened, out)
        return by_opened, out

    def softmax(self, scores: Tensor, scale: float) -> Tensor:
        """See :meth:`.elementwise_torch.Eager.softmax`; in place, of rows of at most :data:`LONGEST`."""
        if scores.shape[-1] > LONGEST:
            raise ValueError(f"a row of {scores.shape[-1]} scores does not fit the kernel's {LONGEST}")
        self._call("softmax", scores.numel() // scores.shape[-1], scores.shape[-1], scores, scale)
        return scores

    def softmax_backward(self, weights: Tensor, upstream: Tensor, scale: float) -> Tensor:
        """See :meth:`.elementwise_torch.Eager.softmax_backward`; in place of `upstream`."""
        rows = weights.numel() // weights.shape[-1]
        self._call("softmax_backward", rows, weights.shape[-1], weights, upstream, scale)
        return upstream
