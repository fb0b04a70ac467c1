"""What ``python -m benchmarks train`` compares, and the settings it tries on either side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.train.trainers import Setting
from reasoning_embedding import config
from reasoning_embedding.errors import InputError
from reasoning_embedding.planning.shapes import known_shape

PACK_TOKENS: tuple[int, ...] = (512, 1024, 2048, 4096, 8192, 16384)
CHUNKS = (1, 2, 4, 8, 16, 32, 64)
#: Compared on a GPU, with random weights.
GPU_MODELS = ("Qwen3-0.6B", "Qwen3-1.7B")
#: Queries a step in bf16 where a CPU multiplies it in software: sentence-transformers takes 3 s for each.
_SOFTWARE_QUERIES = 2


def _known(name: str) -> config.Architecture:
    shape = known_shape(name)
    assert shape is not None
    return config.Architecture(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate,
    )


ARCHITECTURES = {
    "S": config.Architecture(),
    "M": config.Architecture(
        hidden_size=512,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        intermediate_size=1536,
    ),
    **{name: _known(f"Qwen/{name}") for name in GPU_MODELS},
}


@dataclass(frozen=True)
class Case:
    """One comparison: a shape, a mix of lengths, a compute dtype and queries a step."""

    model: str
    mix: str
    dtype: Literal["fp32", "bf16"]
    queries: int

    def name(self, opponent: str) -> str:
        """Name of its record against an opponent, such as ``train/wide/st-best/bf16``."""
        return "/".join(
            ["train", *([] if self.model == "S" else [self.model]), self.mix, opponent, self.dtype]
        )


def cases(*, quick: bool, gpu: bool, bf16: bool = True, model: str | None = None) -> list[Case]:
    """Return what is compared: on a CPU the small shapes, on a GPU real ones too; or one shape alone.

    Parameters
    ----------
    quick : bool
        The small shape with 16 queries a step; with `model`, fewer settings.
    gpu : bool
        Whether there is one.
    bf16 : bool
        Whether the device has such products. Where it has none, M and a quick comparison leave bf16 out; otherwise
        two queries tell how slow it is.
    model : str, optional
        The only shape.

    Raises
    ------
    InputError
        If `model` is none of these shapes.
    """
    every: tuple[Literal["bf16", "fp32"], ...] = ("bf16", "fp32")
    fast = every if bf16 else every[1:]
    small = [Case("S", "wide", dtype, 16) for dtype in fast] + [Case("S", "narrow", fast[0], 16)]
    full = [Case("S", mix, dtype, 64) for mix in ("wide", "narrow") for dtype in every]
    larger = [Case("M", "wide", dtype, 16) for dtype in fast]
    real = [Case(name, "wide", "bf16", 32) for name in GPU_MODELS] if gpu else []
    found = small if quick else full + larger + real
    if model is not None:
        known = found + (larger + real if quick else [])
        found = [case for case in known if case.model == model]
        if not found:
            shapes = ", ".join(dict.fromkeys(case.model for case in known))
            raise InputError(
                f"no shape {model!r} is compared here", where="--model", todo=f"choose of {shapes}"
            )
    if bf16:
        return found
    return [replace(case, queries=_SOFTWARE_QUERIES) if case.dtype == "bf16" else case for case in found]


def our_settings(tokens: int, *, quick: bool) -> list[Setting]:
    """Packs that all are kept; at the middle size, half of the batch's tokens kept, and none (replay)."""
    packs = PACK_TOKENS[::2] if quick else PACK_TOKENS
    middle = packs[len(packs) // 2]
    return [
        *({"pack_tokens": size} for size in packs),
        *({"pack_tokens": middle, "store_tokens": kept} for kept in (tokens // 2, 0)),
    ]


def their_settings(queries: int, *, quick: bool) -> list[Setting]:
    """MNRL, and CachedMNRL by texts and by tokens a chunk; chunks beyond a column of texts equal the column."""
    sizes = [size for size in (CHUNKS[::2] if quick else CHUNKS) if size < 2 * queries]
    budgets = PACK_TOKENS[:1] if quick else PACK_TOKENS
    return [
        {"loss": "mnrl"},
        *({"loss": "cached", "chunk": size} for size in sizes),
        *({"loss": "cached", "chunk_tokens": size} for size in budgets),
    ]
