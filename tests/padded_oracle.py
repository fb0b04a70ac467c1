"""The oracle of a step: one padded batch through a stock decoder, and torch's cross-entropy."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from reasoning_embedding.backbones import Embedder, Readout, stock_model, text_keys
from reasoning_embedding.backbones import dropout as dropout_module
from reasoning_embedding.backbones.attention import _PLACE
from reasoning_embedding.backbones.dropout import token_keys
from reasoning_embedding.data.batch import Batch

TEMPERATURE = 0.05
NAME = "padded_oracle"


def padded_loss(
    embedder: Embedder,
    batch: Batch,
    *,
    causal: bool | None = None,
    readout: Readout | None = None,
    dropout: tuple[int, ...] | None = None,
) -> torch.Tensor:
    """Mean cross-entropy of the whole batch in one padded forward; dropout of (seed, step), masks by numpy.

    `causal` and `readout` in the place of the embedder's own are controls.
    """
    readout = readout or embedder.readout
    causal = readout.causal if causal is None else causal
    model = stock_model(embedder)
    width = int(batch.lengths.max())
    ids = torch.zeros(len(batch.texts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(batch.texts):
        ids[row, : len(text)], mask[row, : len(text)] = torch.from_numpy(text).long(), 1
    keys: dict[str, torch.Tensor] = {}
    if dropout is not None:
        texts = torch.from_numpy(text_keys(len(batch.texts), *dropout))[:, None].expand(-1, width)
        keys = {dropout_module.KEYS: token_keys(texts, torch.arange(width).expand_as(texts))}
    with _padded(model, causal), _masks_by_numpy():
        states = model(input_ids=ids, attention_mask=mask, use_cache=False, **keys).last_hidden_state
    vectors = torch.stack(
        [
            _pooled(states[row, : len(text)], 0 if readout.include_prompt else int(prompt), readout.pooling)
            for row, (text, prompt) in enumerate(zip(batch.texts, batch.prompt_lengths, strict=True))
        ]
    )
    for head, module in zip(readout.heads, embedder.heads, strict=True):
        vectors = vectors @ module.linear.weight.T
        vectors = vectors + module.linear.bias if head.bias else vectors
        vectors = torch.tanh(vectors) if head.activation == "tanh" else vectors
    vectors = F.normalize(vectors, dim=1)
    logits = vectors[batch.query] @ vectors[batch.document].T / TEMPERATURE
    return F.cross_entropy(logits, torch.arange(len(batch.query)))


def _pooled(states: torch.Tensor, prompt: int, pooling: str) -> torch.Tensor:
    """One text's states (L, D) to its vector, in a loop over its tokens."""
    if pooling in ("last", "first"):
        return states[-1] if pooling == "last" else states[prompt]
    total, weights = torch.zeros_like(states[0]), 0.0
    for place in range(prompt, len(states)):
        weight = place + 1.0 if pooling == "weighted_mean" else 1.0
        total, weights = total + weight * states[place], weights + weight
    return total / weights


@contextlib.contextmanager
def _padded(model: Any, causal: bool) -> Generator[None]:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    before = model.config._attn_implementation
    was_causal, model.config.is_causal = model.config.is_causal, causal
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        model.config.is_causal = was_causal


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Softmax attention as in the textbook; shapes (B, H, L, D)."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(2, 3) * (scaling or query.shape[-1] ** -0.5)
    assert attention_mask is not None  # lengths differ
    weights = scores.masked_fill(~attention_mask, float("-inf")).softmax(-1)
    if dropout and dropout_module.KEYS in kwargs:
        heads = torch.arange(query.shape[1])[:, None]
        rows = kwargs[dropout_module.KEYS][:, None] ^ heads
        keep = keep_by_numpy(rows, scores.shape[-1], dropout, _PLACE, module.layer_idx)
        weights = weights * keep / (1 - dropout)
    return (weights @ value).transpose(1, 2), None


@contextlib.contextmanager
def _masks_by_numpy() -> Generator[None]:
    before = dropout_module.keep_mask
    dropout_module.keep_mask = keep_by_numpy
    try:
        yield
    finally:
        dropout_module.keep_mask = before


def keep_by_numpy(keys: torch.Tensor, columns: int, probability: float, *place: int) -> torch.Tensor:
    """The slow twin of ``keep_mask``, in unsigned integers as the hashes are published."""
    rows = keys.numpy().astype(np.int64).view(np.uint64)
    with np.errstate(over="ignore"):
        for part in place:
            rows = splitmix(rows + np.uint64(part))
        column = splitmix(np.arange(columns, dtype=np.uint64) - np.uint64(1))
        mixed = rows.astype(np.uint32)[..., None] ^ column.astype(np.uint32)
        mixed = mixed * np.uint32(0x7FEB352D)
        mixed = mixed ^ (mixed >> np.uint32(15))
        mixed = mixed * np.uint32(0x846CA68B)
    return torch.from_numpy(mixed.view(np.int32) >= round(probability * 2**32) - 2**31)


def splitmix(values: np.ndarray) -> np.ndarray:
    """One step of splitmix64."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
