"""Padding-free attention over texts laid end to end, under the name ``packed``.

Texts of one pack share a row of T tokens; ``cu_seq_lens_q`` says where each begins. Position ids alone
would leak across texts when attention is bidirectional, so every text is attended on its own: by SDPA per
run of equally long texts on a CPU, by a variable-length kernel on a GPU.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from reasoning_embedding.errors import ContractError

from . import cpu
from .dropout import KEYS, keep_mask
from .layers import PACKED, is_causal, window_of

#: Sets the masks of attention apart from those of dropout modules.
_PLACE = 1 << 32


@cache
def register() -> str:
    """Register the attention and its (absent) mask with transformers; return the implementation's name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import flash_attention_mask

    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, flash_attention_mask)
    return PACKED


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend within each text of a pack, causally if and only if the model's config says so.

    Parameters
    ----------
    module : torch.nn.Module
        The attention layer; ``module.config.is_causal`` (default True) decides the direction.
    query : Tensor
        (1, H, T, head_dim).
    key, value : Tensor
        (1, H_kv, T, head_dim), H a multiple of H_kv.
    attention_mask : None
        Packs have no padding, so there is nothing to mask.
    dropout : float
        Probability of dropping an attention weight.
    scaling : float, optional
        Factor of the scores; default 1/sqrt(head_dim).
    sliding_window : int, optional
        Window of the layer, with transformers' meaning (causal: distance < window; else <= window).
    **kwargs
        ``cu_seq_lens_q`` (n+1) int32 and ``max_length_q`` of the pack; ``dropout_keys`` (1, T) int64, if
        dropout is to depend on the text (see :mod:`.dropout`).

    Returns
    -------
    tuple of (Tensor, None)
        (1, T, H, head_dim) and no attention weights.

    Raises
    ------
    ContractError
        If the layer asks for logit soft-capping or attention sinks, which no kernel here computes.
    """
    boundaries = kwargs.get("cu_seq_lens_q")
    if boundaries is None or attention_mask is not None or query.shape[0] != 1:
        raise ContractError(
            "packed attention was called without packed input",
            where=type(module).__name__,
            todo="call the model through Embedder, or load it with attn_implementation='sdpa' for padded batches",
        )
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ContractError(
            "this layer caps its logits or has attention sinks, which packed attention does not compute",
            where=type(module).__name__,
            todo="choose a backbone of another family",
        )
    config = getattr(module, "config", module)
    causal = is_causal(config)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = window_of(config, sliding_window)
    rule: dict[str, Any] = {"scale": scale, "causal": causal, "window": window}
    tensors = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
    dtype = varlen_dtype(query, dropout)
    if dropout and kwargs.get(KEYS) is not None:
        place = int(getattr(module, "layer_idx", 0))
        out = _texts_with_dropout(
            *tensors, boundaries, dropout=dropout, keys=kwargs[KEYS][0], place=place, **rule
        )
    elif dtype is None:
        out = attend_by_runs(*tensors, boundaries, dropout=dropout, **rule)
    else:
        half = (tensor.to(dtype) for tensor in tensors)
        out = attend_by_kernel(*half, boundaries, int(kwargs["max_length_q"]), **rule)
    return out.unsqueeze(0), None


def attend_by_runs(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    *,
    dropout: float,
    scale: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    """Attend per run of equally long texts; shapes (T, H, D), (T, H_kv, D) -> (T, H, D)."""
    # Boundaries of a padded pack hold texts of no tokens.
    runs = [(length, len(list(same))) for length, same in groupby(boundaries.diff().tolist()) if length]
    sizes = [length * texts for length, texts in runs]
    groups = query.shape[1] // key.shape[1]
    pieces: list[Tensor] = []
    # Split, not sliced: the gradient of a slice is as large as what it was cut from.
    parts = zip(*(tensor.split(sizes) for tensor in (query, key, value)), strict=True)
    for (length, texts), part in zip(runs, parts, strict=True):
        q, k, v = (t.view(texts, length, -1, t.shape[-1]).transpose(1, 2) for t in part)
        mask = _window_mask(length, window, causal, query.device)
        if mask is None and not causal:
            out = _attend_all(q, k, v, dropout, scale)
        else:
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
            out = F.scaled_dot_product_attention(
                q, k, v, mask, dropout_p=dropout, scale=scale, is_causal=mask is None
            )
        pieces.append(out.transpose(1, 2).reshape(texts * length, query.shape[1], -1))
    return torch.cat(pieces)


def _attend_all(query: Tensor, key: Tensor, value: Tensor, dropout: float, scale: float) -> Tensor:
    """Attend from every token to every token of its text: (n, H, L, D), (n, H_kv, L, D) -> (n, H, L, D)."""
    texts, heads, length, size = query.shape
    # Without mask a query's place does not matter: heads that share keys stand below each other, not repeated.
    rows = query.reshape(texts, key.shape[1], -1, size)
    out = None if dropout else cpu.attend(rows, key, value, scale)
    if out is None:
        out = F.scaled_dot_product_attention(rows, key, value, dropout_p=dropout, scale=scale)
    return out.reshape(texts, heads, length, size)


def _texts_with_dropout(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    *,
    dropout: float,
    scale: float,
    causal: bool,
    window: int | None,
    keys: Tensor,
    place: int,
) -> Tensor:
    """Attend text by text with dropout that belongs to the text; shapes as :func:`attend_by_runs`."""
    heads = torch.arange(query.shape[1], device=query.device)[:, None]
    groups = query.shape[1] // key.shape[1]
    pieces: list[Tensor] = []
    for start, stop in pairwise(boundaries.tolist()):
        q, k, v = (t[start:stop].transpose(0, 1) for t in (query, key, value))
        scores = q @ k.repeat_interleave(groups, 0).transpose(1, 2) * scale
        mask = _window_mask(stop - start, window, causal, query.device)
        if mask is None and causal:
            mask = torch.ones(stop - start, stop - start, dtype=torch.bool, device=query.device).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        keep = keep_mask(keys[start:stop] ^ heads, stop - start, dropout, _PLACE, place)
        weights = torch.where(keep, scores.softmax(-1) / (1 - dropout), 0)
        pieces.append((weights @ v.repeat_interleave(groups, 0)).transpose(0, 1))
    return torch.cat(pieces)


def _window_mask(length: int, window: int | None, causal: bool, device: torch.device) -> Tensor | None:
    if window is None or length <= window:
        return None
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance < window) if causal else distance.abs() <= window


def varlen_dtype(query: Tensor, dropout: float) -> torch.dtype | None:
    """Dtype in which a variable-length kernel takes this query; None where none does.

    The kernels have no dropout, and want half precision, heads of a multiple of 8 up to 256, and compute
    capability 8.0 (Ampere).
    """
    if not query.is_cuda or dropout or query.shape[-1] % 8 or query.shape[-1] > 256:
        return None
    dtype = query.dtype
    if dtype == torch.float32 and torch.is_autocast_enabled("cuda"):
        # Under autocast rotary embedding, and norms of heads, give float32: what autocast computes in counts.
        dtype = torch.get_autocast_dtype("cuda")
    half = dtype in (torch.float16, torch.bfloat16)
    return dtype if half and torch.cuda.get_device_capability(query.device) >= (8, 0) else None


@cache
def varlen_kernel() -> tuple[str, Callable[..., Any]]:
    """Return the variable-length kernel of this machine: flash-attn when installed, else torch's own."""
    try:
        from flash_attn import flash_attn_varlen_func  # ty: ignore[import-not-found]
    except ImportError:
        from torch.nn.attention.varlen import varlen_attn

        return "torch", varlen_attn
    return "flash-attn", flash_attn_varlen_func


@cache
def _parameters(kernel: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(kernel).parameters)


def attend_by_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    longest: int,
    *,
    scale: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    """Attend by one fused kernel; shapes as :func:`attend_by_runs`."""
    name, kernel = varlen_kernel()
    reach = -1 if window is None else window
    windows = (reach - 1 if causal and window is not None else reach, 0 if causal else reach)
    boundaries = boundaries.to(torch.int32)
    if name == "flash-attn":
        return kernel(
            query, key, value, boundaries, boundaries, longest, longest,
            softmax_scale=scale, causal=causal, window_size=windows,
        )  # fmt: skip
    parameters = _parameters(kernel)
    options: dict[str, Any] = {}
    if "window_size" in parameters:
        options |= {"scale": scale, "window_size": windows}
    elif window is not None:
        return attend_by_runs(
            query, key, value, boundaries, dropout=0.0, scale=scale, causal=causal, window=window
        )
    else:  # torch 2.10 has no window, a flag for causal, and scales by 1/sqrt(head_dim) whatever the model asks for
        options["is_causal"] = causal
        query = query * (scale * query.shape[-1] ** 0.5)
    if "enable_gqa" in parameters:
        options["enable_gqa"] = query.shape[1] != key.shape[1]
    elif query.shape[1] != key.shape[1]:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    return kernel(query, key, value, boundaries, boundaries, longest, longest, **options)
