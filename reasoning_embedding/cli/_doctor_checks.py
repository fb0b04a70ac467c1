"""The checks of ``rembed doctor``; each looks at one thing and never raises for what it finds."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from reasoning_embedding.errors import ReasoningEmbeddingError

PACKAGE = "reasoning-embedding"
_GIB = 2**30
_CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Parameters
    ----------
    name : str
        What was looked at.
    state : {"ok", "absent", "problem"}
        ``absent`` is something optional that is not here.
    detail : str
        What was found.
    todo : str, optional
        What to do about it.
    core : bool
        Whether everything needs it.
    """

    name: str
    state: Literal["ok", "absent", "problem"]
    detail: str
    todo: str | None = None
    core: bool = False


def python() -> Iterator[Finding]:
    """Python's version against the oldest supported one."""
    wanted = metadata.metadata(PACKAGE)["Requires-Python"]
    oldest = tuple(int(part) for part in re.findall(r"\d+", wanted))
    good = tuple(sys.version_info[:3])[: len(oldest)] >= oldest
    detail = f"{platform.python_version()} ({wanted}) at {sys.prefix}"
    yield Finding("python", "ok" if good else "problem", detail, None if good else "make install", core=True)


def packages() -> Iterator[Finding]:
    """Installed versions against the ranges of the package's own metadata: core, then each extra."""
    from packaging.requirements import Requirement

    groups: dict[str, list[Requirement]] = {"": []}
    for line in metadata.requires(PACKAGE) or []:
        requirement = Requirement(line)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", str(requirement.marker or ""))
        if requirement.name != PACKAGE:
            groups.setdefault(extra[1] if extra else "", []).append(requirement)
    for extra, requirements in groups.items():
        installed = {item.name: _version(item.name) for item in requirements}
        missing = [name for name, version in installed.items() if version is None]
        wrong = [
            f"{item.name} {version} is outside {item.specifier}"
            for item in requirements
            if (version := installed[item.name]) and not item.specifier.contains(version, prereleases=True)
        ]
        name = f"extra {extra}" if extra else "packages"
        fix = f"pip install -c constraints.txt -e '.[{extra}]'" if extra else "make install"
        if wrong or (missing and not extra):
            detail = "; ".join([*wrong, *(f"{item} is not installed" for item in missing)])
            yield Finding(name, "problem", detail, fix, core=not extra)
        elif missing:
            yield Finding(name, "absent", f"without {', '.join(missing)}", fix)
        else:
            detail = ", ".join(f"{item} {version}" for item, version in installed.items())
            yield Finding(name, "ok", detail)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def cpu() -> Iterator[Finding]:
    """Cores this process may use, and memory."""
    from reasoning_embedding.host import host_memory

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = host_memory()
    detail = f"{cores} cores, {memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB memory available"
    cure = "close other programs"
    if memory.limited:
        detail += ", a limit of its container or job"
        cure = "ask the container or the scheduler for more memory"
    low = memory.available < 2 * _GIB
    yield Finding("cpu", "problem" if low else "ok", detail, cure if low else None)


def devices() -> Iterator[Finding]:
    """Whether torch imports and computes, and the accelerators it sees."""
    try:
        import torch

        right = bool((torch.ones(2, 2) @ torch.ones(2, 2) == 2).all())
    except (ImportError, OSError, RuntimeError) as error:
        yield Finding("torch", "problem", f"cannot be used: {error}", "make install", core=True)
        return
    from reasoning_embedding.backbones import multiplies_bfloat16

    half = "bf16" if multiplies_bfloat16() else "no bf16, computes in fp32"
    detail = f"{torch.__version__}, {torch.get_num_threads()} threads; CPU: {half}"
    yield Finding("torch", "ok" if right else "problem", detail, core=True)
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
            yield Finding(f"cuda:{index}", "ok", f"{found.name}, {found.total_memory / _GIB:.0f} GiB, {bf16}")
    elif torch.version.cuda:
        yield Finding("cuda", "absent", "torch has CUDA, but no GPU or driver answers", "check nvidia-smi")
    else:
        yield Finding("cuda", "absent", "this torch is a CPU build; training runs on the CPU")


def launchers() -> Iterator[Finding]:
    """What can start several ranks."""
    for name, module, todo in (
        ("accelerate", "accelerate.commands.launch", "make install"),
        ("torchrun", "torch.distributed.run", "make install"),
        ("deepspeed", "deepspeed", "pip install 'reasoning-embedding[deepspeed]'"),
    ):
        here = _importable(module)
        detail = f"{name} {_version('torch' if name == 'torchrun' else name)}" if here else "not installed"
        yield Finding(name, "ok" if here else "absent", detail, None if here else todo)


def attention() -> Iterator[Finding]:
    """Whether packed attention keeps texts apart here, on the CPU and on a GPU."""
    import torch

    from reasoning_embedding.backbones.attention import varlen_kernel

    cpu_error = _packed_error("cpu")
    detail = "packed, scaled_dot_product_attention a text"
    if cpu_error:
        yield Finding("attention cpu", "problem", cpu_error, "make install", core=True)
    else:
        yield Finding("attention cpu", "ok", detail)
    if not torch.cuda.is_available():
        yield Finding("attention gpu", "absent", "variable-length kernels need a CUDA device")
    elif gpu_error := _packed_error("cuda"):
        yield Finding("attention gpu", "problem", gpu_error, "install torch >= 2.10 or flash-attn")
    else:
        yield Finding("attention gpu", "ok", f"packed, {varlen_kernel()[0]}")
    flash = _version("flash-attn")
    yield Finding("flash-attn", "ok" if flash else "absent", flash or "not installed; never required")


def _packed_error(device: str) -> str | None:
    """What is wrong with packed attention on a device; None where texts are kept apart."""
    from reasoning_embedding.backbones import packed_attention_difference

    try:
        difference = packed_attention_difference(device)
    except (ReasoningEmbeddingError, RuntimeError) as error:
        return str(error)
    limit = 1e-5 if device == "cpu" else 0.05
    return None if difference < limit else f"texts leak into each other ({difference:.2g})"


def trackers() -> Iterator[Finding]:
    """Where metrics can go besides metrics.jsonl."""
    for name, extra in (("tensorboard", "tracking"), ("wandb", "wandb"), ("trackio", "trackio")):
        version = _version(name)
        todo = None if version else f"pip install 'reasoning-embedding[{extra}]'"
        yield Finding(name, "ok" if version else "absent", version or "not installed", todo)


def hub() -> Iterator[Finding]:
    """Whether the Hugging Face Hub answers within two seconds."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        yield Finding("hub", "absent", "HF_HUB_OFFLINE is set; only local models and data sets are used")
        return
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        with urllib.request.urlopen(request, timeout=2):
            yield Finding("hub", "ok", endpoint)
    except urllib.error.HTTPError as error:
        yield Finding("hub", "ok", f"{endpoint} (answers {error.code})")
    except (OSError, ValueError) as error:
        yield Finding(
            "hub", "absent", f"{endpoint} does not answer: {error}", "export HF_HUB_OFFLINE=1 to skip waiting"
        )


def disk() -> Iterator[Finding]:
    """Free space and permission where runs are written."""
    runs = Path("runs").resolve()
    here = next(folder for folder in (runs, *runs.parents) if folder.exists())
    free = shutil.disk_usage(here).free
    detail = f"{free / _GIB:.1f} GiB free for {runs}"
    if not os.access(here, os.W_OK):
        yield Finding("disk", "problem", f"{here} cannot be written", "choose an output_dir you may write to")
    elif free < 2 * _GIB:
        yield Finding("disk", "problem", detail, "free some space; a checkpoint of a 0.6B model is 1.2 GB")
    else:
        yield Finding("disk", "ok", detail)


def browser() -> Iterator[Finding]:
    """Chromium, which only the tests of the report page use."""
    found = next(filter(None, map(shutil.which, _CHROMIUMS)), None)
    yield Finding("chromium", "ok" if found else "absent", found or "the report's browser tests are skipped")


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    python,
    packages,
    cpu,
    devices,
    launchers,
    attention,
    trackers,
    hub,
    disk,
    browser,
)
