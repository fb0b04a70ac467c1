"""Tiny models and batches for tests of backbones and training."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import torch
from torch import nn

from reasoning_embedding.backbones import Embedder, Readout
from reasoning_embedding.backbones.attention import register

SIZES: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def tiny_decoder(model_type: str = "qwen3", *, causal: bool = False, **changes: Any) -> Any:
    """A decoder of two layers with random weights under packed attention."""
    from transformers import CONFIG_MAPPING, AutoModel

    settings = CONFIG_MAPPING[model_type](**{**SIZES, **changes})
    settings.is_causal = causal
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModel.from_config(settings)
    model.set_attn_implementation(register())
    model.config.use_cache = False
    return model.eval()


def tiny_embedder(
    model_type: str = "qwen3", *, double: bool = False, readout: Readout | None = None, **changes: Any
) -> Embedder:
    """An embedder over :func:`tiny_decoder`; `double` for float64."""
    causal = changes.pop("causal", False) or bool(readout and readout.causal)
    model = tiny_decoder(model_type, causal=causal, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        embedder = Embedder(model, None, readout)  # type: ignore[arg-type]
    return embedder.double() if double else embedder


@contextlib.contextmanager
def exact_norms() -> Generator[None]:
    """Let transformers' RMSNorms compute in float64; they round to float32 otherwise."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    def forward(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
        variance = hidden_states.pow(2).mean(-1, keepdim=True)
        return self.weight * (hidden_states * torch.rsqrt(variance + self.variance_epsilon))

    kinds: list[type[nn.Module]] = [LlamaRMSNorm, Qwen3RMSNorm]
    before = [kind.forward for kind in kinds]
    for kind in kinds:
        kind.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        for kind, original in zip(kinds, before, strict=True):
            kind.forward = original  # type: ignore[method-assign]


def gradients(module: nn.Module) -> torch.Tensor:
    """All gradients as one vector."""
    return torch.cat(
        [(p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1) for p in module.parameters()]
    )


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Norm of the difference over the norm of `b`."""
    return float(((a - b).norm() / b.norm()).detach())
