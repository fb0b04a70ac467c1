"""Low-rank adaptation, and the plain weights it stands for."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from reasoning_embedding import config

from .embedder import Embedder


def add_lora(embedder: Embedder, lora: config.Lora) -> None:
    """Freeze the backbone and put trainable adapters on its linear layers, in place."""
    from peft import LoraConfig, TaskType, get_peft_model

    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # ty: ignore[invalid-argument-type]  (peft divides, a float is fine)
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type=TaskType.FEATURE_EXTRACTION,
    )
    embedder.model = get_peft_model(embedder.model, settings)  # ty: ignore[invalid-assignment]


def stock_model(embedder: Embedder) -> Any:
    """Return the stock transformers module, without peft's wrapper."""
    model: Any = embedder.model
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def merged_state_dict(embedder: Embedder) -> dict[str, Tensor]:
    """Return the stock module's weights with every adapter added in; the model itself is untouched.

    Merging into the module and out again would leave rounding behind, and a run that saves would then
    differ from one that does not.
    """
    stock = stock_model(embedder)
    if stock is embedder.model:
        return dict(stock.state_dict())
    merged: dict[str, Tensor] = {}
    deltas = {
        f"{name}.weight": sum(module.get_delta_weight(adapter) for adapter in module.active_adapters)
        for name, module in stock.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    for name, value in stock.state_dict().items():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        merged[plain] = value + deltas[plain].to(value.dtype) if plain in deltas else value
    return merged
