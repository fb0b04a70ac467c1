"""Trading activations for work within one forward: recompute layers, parts of them, or wait in host memory."""

from __future__ import annotations

import contextlib
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

#: Products with a weight; their inputs are elementwise work on other products, made again for little.
#: Batched products are attention's, of scores that grow with the square of a text.
_PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default}
#: Parts of the names of attention kernels: torch's own on CPU and GPU, variable-length ones, flash-attn.
_ATTENTION = ("attention", "attn")


def recompute_activations(model: nn.Module, kind: Literal[True, "selective", "offload"]) -> None:
    """Let a stock decoder keep fewer activations while it trains; its outputs and gradients stay the same.

    Parameters
    ----------
    model : nn.Module
        A transformers decoder.
    kind : True, "selective" or "offload"
        True keeps the input of each layer. ``selective`` keeps what matrix products and attention give, and
        makes elementwise work again. ``offload`` keeps the inputs of layers in host memory.

    Notes
    -----
    Selective keeps 3 d + 2 a + 2 k + 2 f values a token and layer, for width d, attention width a (heads x
    head_dim), key-value width k and MLP width f: at the proportions of Qwen3-0.6B in bf16, 32 KB where all
    would be 95 KB. The others keep d (Chen et al. 2016, arXiv 1604.06174).
    """
    options: dict[str, Any] = {"use_reentrant": False}
    if kind == "selective":
        options["context_fn"] = _keep_products
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable(options)  # ty: ignore[not-callable]
    if kind == "offload":
        _wait_in_host_memory(model)


def _keep_products() -> tuple[Any, Any]:
    return create_selective_checkpoint_contexts(_policy)


def _policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    name = operator.name() if hasattr(operator, "name") else ""
    kept = operator in _PRODUCTS or any(part in name for part in _ATTENTION)
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def _wait_in_host_memory(model: nn.Module) -> None:
    """Copy what a forward of `model` saves (inputs of checkpointed layers) to the host, and back when needed."""
    open_contexts: list[contextlib.ExitStack] = []

    def enter(module: nn.Module, *args: Any) -> None:
        stack = contextlib.ExitStack()
        if torch.is_grad_enabled():
            pinned = torch.cuda.is_available()
            stack.enter_context(torch.autograd.graph.save_on_cpu(pin_memory=pinned))
        open_contexts.append(stack)

    def leave(module: nn.Module, *args: Any) -> None:
        open_contexts.pop().close()

    model.register_forward_pre_hook(enter)
    model.register_forward_hook(leave, always_call=True)
