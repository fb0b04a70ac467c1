"""Low-rank adaptation, and the plain weights it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reasoning_embedding import config
from reasoning_embedding.errors import InputError

from .embedder import Embedder


def add_lora(embedder: Embedder, lora: config.Lora) -> None:
    """Freeze the backbone and put trainable adapters on its linear layers, in place.

    Raises
    ------
    InputError
        If the backbone has no layers of the names that are asked for.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # ty: ignore[invalid-argument-type]  (peft divides, a float is fine)
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type=TaskType.FEATURE_EXTRACTION,
    )
    try:
        embedder.model = get_peft_model(embedder.model, settings)  # ty: ignore[invalid-assignment]
    except ValueError as error:
        raise InputError(
            f"adapters cannot be put on {lora.target_modules}: {str(error).splitlines()[0]}",
            where="training.lora.target_modules",
            todo="name linear layers of this backbone, such as q_proj, or all-linear",
        ) from error


def stock_model(embedder: Embedder) -> Any:
    """Return the stock transformers module, without peft's wrapper."""
    model: Any = embedder.model
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def merged_state_dict(embedder: Embedder, weights: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the stock module's weights with every adapter added in; the model itself is untouched.

    Merging into the module and out again would leave rounding behind, and a run that saves would then
    differ from one that does not.

    Parameters
    ----------
    embedder : Embedder
        The model.
    weights : mapping, optional
        Its state dict in complete tensors, where its own parameters are shards.
    """
    stock = stock_model(embedder)
    prefix = next(name for name, module in embedder.named_modules() if module is stock) + "."
    complete = embedder.state_dict() if weights is None else weights
    own = {name.removeprefix(prefix): value for name, value in complete.items() if name.startswith(prefix)}
    if stock is embedder.model:
        return own
    merged = {name.replace(".base_layer.", "."): value for name, value in own.items() if ".lora_" not in name}
    adapted: list[tuple[str, Any]] = [
        item for item in stock.named_modules() if hasattr(item[1], "get_delta_weight")
    ]
    for name, module in adapted:
        for adapter in module.active_adapters:
            low, high = own[f"{name}.lora_A.{adapter}.weight"], own[f"{name}.lora_B.{adapter}.weight"]
            weight = merged[f"{name}.weight"]
            merged[f"{name}.weight"] = weight + ((high @ low) * module.scaling[adapter]).to(weight.dtype)
    return merged


def head_state_dicts(
    embedder: Embedder, weights: Mapping[str, Tensor] | None = None
) -> list[dict[str, Tensor]]:
    """Return the weights of each head under the names of sentence-transformers' Dense: ``linear.weight``, ``linear.bias``.

    Parameters
    ----------
    embedder : Embedder
        The model.
    weights : mapping, optional
        Its state dict in complete tensors, where its own parameters are shards.
    """
    complete = embedder.state_dict() if weights is None else weights
    return [
        {
            name.removeprefix(f"heads.{number}."): value.detach().contiguous().cpu()
            for name, value in complete.items()
            if name.startswith(f"heads.{number}.")
        }
        for number in range(len(embedder.heads))
    ]
