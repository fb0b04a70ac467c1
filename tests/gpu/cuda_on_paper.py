"""Steps on a CUDA device that is not there: fake tensors, forward and backward. Run by test_cuda_on_paper.

Fake tensors have a shape, a dtype and a device, and refuse to meet one of another device; they have no values,
so whatever reads one is seen. Prints one JSON object: case -> what happened, in order.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Generator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder, Pack, make_packs, packs
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.distributed import World
from reasoning_embedding.losses import build_loss
from reasoning_embedding.training import contrastive_step
from reasoning_embedding.training import embedding_pass as share
from reasoning_embedding.training.engines import Replicated
from reasoning_embedding.training.optimizers import build_optimizer
from reasoning_embedding.training.recompute import recompute_activations
from tests.factories import random_batch
from tests.models import tiny_embedder

WORLD = World(device=torch.device("cuda", 0))
#: Qwen3-0.6B but for its depth.
WIDE = {
    "hidden_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 16, "num_key_value_heads": 8,
    "head_dim": 128, "intermediate_size": 3072, "vocab_size": 151_936,
}  # fmt: skip
SMALL = {"head_dim": 64}
_DRAWN = random_batch()
#: Made where tensors have values. Without the document that is there twice: finding copies needs values.
BATCH = Batch.from_arrays(_DRAWN.texts, _DRAWN.prompt_lengths, _DRAWN.query, _DRAWN.document[:-1])


class Events(TorchDispatchMode):
    """Writes down attention kernels with their dtype, copies to the device, and reads from it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.name(), kwargs or {}
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if "varlen_attn" in name or "scaled_dot_product" in name:
            self.found.append(f"{name.rpartition('::')[2]} {str(first.dtype).removeprefix('torch.')}")
        elif name == "aten::_local_scalar_dense" and first.device.type == "cuda":
            self.found.append("read")
            return 0.5 if first.is_floating_point() else 1
        elif name == "aten::_to_copy" and torch.device(kwargs.get("device") or "cpu").type == "cuda":
            self.found += ["copy"] if first.device.type == "cpu" else []
        return func(*args, **kwargs)


@contextlib.contextmanager
def on_paper() -> Generator[list[str]]:
    """Let tensors be fake inside, and CUDA be there as far as the step asks."""

    def real(owner: Any, name: str) -> Any:
        function = getattr(owner, name)

        def run(*args: Any, **kwargs: Any) -> Any:
            with unset_fake_temporarily():
                return function(*args, **kwargs)

        return mock.patch.object(owner, name, run)

    with (
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        mock.patch("torch.cuda.is_bf16_supported", return_value=True),
        mock.patch("torch.cuda.get_device_capability", return_value=(9, 0)),
        mock.patch("torch.cuda.get_rng_state", return_value=torch.zeros(16, dtype=torch.uint8)),
        mock.patch("torch.cuda.set_rng_state"),
        # What is made on the host has values: it decides shapes.
        real(packs, "make_pack"),
        real(share, "text_keys"),
        real(Pack, "with_dropout"),
        FakeTensorMode(allow_non_fake_inputs=True),
        Events() as events,
    ):
        yield events.found


def step(
    family: str = "qwen3",
    *,
    autocast: torch.dtype | None = torch.bfloat16,
    prepare: Callable[[Embedder], None] = lambda embedder: None,
    sizes: dict[str, Any] = SMALL,
    pack_tokens: int = 64,
    **options: Any,
) -> Callable[[], None]:
    """A whole step, its update included."""

    def run() -> None:
        with WORLD.device:
            embedder = tiny_embedder(family, **sizes).train()
        prepare(embedder)
        recipe = config.Training.model_construct(
            optimizer=config.AdamW(), learning_rate=1e-3, betas=(0.9, 0.999), weight_decay=0.1
        )
        engine = Replicated(embedder, WORLD, lambda model: build_optimizer(model, recipe), max_norm=1.0)
        contrastive_step(
            embedder,
            BATCH,
            build_loss(config.InfoNCE()),
            WORLD,
            pack_tokens=pack_tokens,
            autocast=autocast,
            engine=engine,
            dropout=(0, 1),
            **options,
        )
        assert all(parameter.grad.device == WORLD.device for parameter in embedder.parameters())
        engine.update(1e-3)

    return run


def encode() -> None:
    """What encoding does with packs, with bfloat16 weights."""
    torch.set_default_dtype(torch.bfloat16)
    with WORLD.device:
        embedder = tiny_embedder(**SMALL)
    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for pack, _ in make_packs(BATCH.texts, BATCH.prompt_lengths, 64):
            embedder(pack.to(WORLD.device))


def meet_the_host() -> None:
    """A pack that was left on the host."""
    with WORLD.device:
        embedder = tiny_embedder(**SMALL)
    embedder(packs.make_pack(BATCH.texts, BATCH.prompt_lengths))


def recompute(kind: Any) -> Callable[[Embedder], None]:
    """Ask for a kind of recomputation."""
    return lambda embedder: recompute_activations(embedder.model, kind)


CASES: dict[str, Callable[[], None]] = {
    "store": step(),
    "more packs": step(pack_tokens=24),
    "replay": step(store_tokens=0),
    "layers": step(prepare=recompute(True)),
    "selective": step(prepare=recompute("selective")),
    "offload": step(prepare=recompute("offload")),
    "float32": step(autocast=None),
    "Qwen3-0.6B": step(sizes=WIDE),
    "gemma3_text": step("gemma3_text"),
    "encode": encode,
    "host": meet_the_host,
}


def main() -> None:
    """Run every case and print what happened."""
    found: dict[str, list[str]] = {}
    for name, run in CASES.items():
        with on_paper() as events:
            try:
                run()
            except (RuntimeError, AssertionError) as error:
                events.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")
            found[name] = list(events)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
