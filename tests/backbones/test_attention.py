"""The attention contract: who keeps it, who is refused, and that it can fail."""

from __future__ import annotations

import sys
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from reasoning_embedding.backbones import attention, check_attention, make_pack
from reasoning_embedding.backbones.layers import PACKED
from reasoning_embedding.errors import ContractError
from tests.models import SIZES, tiny_decoder

FAMILIES = (
    "qwen3", "qwen2", "llama", "mistral", "phi3", "olmo2", "olmo3",
    "gpt_neox", "gemma", "gemma3_text", "smollm3", "granite",
)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_supported_families_keep_the_contract(family: str) -> None:
    found = check_attention(tiny_decoder(family), where=family)
    assert found.least_reach > 1e-3
    assert found.causal_reach == 0
    assert found.leak == 0
    assert found.padding < 1e-5


def test_a_causal_model_is_refused_by_name() -> None:
    with pytest.raises(ContractError, match=r"my-model: .*not bidirectional in layer 0, 1"):
        check_attention(tiny_decoder(causal=True), where="my-model")


@pytest.mark.parametrize("family", ["stablelm", "nemotron", "gemma2"])
def test_families_that_do_not_honour_the_flag_are_refused(family: str) -> None:
    with pytest.raises(ContractError) as caught:
        check_attention(tiny_decoder(family), where=family)
    assert str(caught.value).startswith(f"{family}: ")
    assert caught.value.exit_code == 2


def test_hybrid_layers_are_refused_by_name() -> None:
    model = tiny_decoder("lfm2", layer_types=["conv", "full_attention"])
    with pytest.raises(ContractError, match="conv layers stay causal"):
        check_attention(model, where="hybrid")


def test_one_causal_layer_among_bidirectional_ones_is_found() -> None:
    model = tiny_decoder()
    model.layers[1].self_attn.config = type(model.config)(**{**SIZES, "num_hidden_layers": 2})
    model.layers[1].self_attn.config._attn_implementation = PACKED
    with pytest.raises(ContractError, match="layer 1"):
        check_attention(model, where="mixed")


def test_attention_across_texts_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaky(*states: Any, cu_seq_lens_q: torch.Tensor, **options: Any) -> Any:
        return attention.packed_attention(*states, cu_seq_lens_q=cu_seq_lens_q[[0, -1]], **options)

    model = tiny_decoder()
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, PACKED, leaky)
    with pytest.raises(ContractError, match="see each other"):
        check_attention(model, where="leaky")


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 3])
def test_packed_equals_padded_with_windows(causal: bool, window: int | None) -> None:
    changes = {} if window is None else {"sliding_window": window}
    model = tiny_decoder("mistral", causal=causal, **changes).double()
    texts = [torch.randint(3, 100, (n,)).numpy() for n in (9, 4, 9)]
    pack = make_pack(texts, [0, 0, 0])
    packed = model(**pack.model_inputs()).last_hidden_state[0]
    model.set_attn_implementation("eager")
    start = 0
    for text in texts:
        alone = model(input_ids=torch.from_numpy(text)[None].long(), use_cache=False).last_hidden_state[0]
        torch.testing.assert_close(packed[start : start + len(text)], alone, rtol=0, atol=2e-6)
        start += len(text)


def test_packed_attention_refuses_padded_batches() -> None:
    ids = torch.ones(2, 4, dtype=torch.long)
    with pytest.raises(ContractError, match="without packed input"):
        tiny_decoder()(input_ids=ids, attention_mask=torch.ones_like(ids))


def _reference(query, key, value, boundaries, scale, left, right):  # type: ignore[no-untyped-def]
    """Attention of each query to the keys from `left` before it to `right` after it (-1: all), text by text."""
    groups = query.shape[1] // key.shape[1]
    pieces = []
    for start, stop in pairwise(boundaries.tolist()):
        q, k, v = (t[start:stop].transpose(0, 1) for t in (query, key, value))
        place = torch.arange(stop - start)
        behind = place[:, None] - place
        seen = (behind <= (left if left >= 0 else stop)) & (-behind <= (right if right >= 0 else stop))
        scores = (q @ k.repeat_interleave(groups, 0).transpose(1, 2) * scale).masked_fill(~seen, -torch.inf)
        pieces.append((scores.softmax(-1) @ v.repeat_interleave(groups, 0)).transpose(0, 1))
    return torch.cat(pieces)


def _torch_2_10(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):  # type: ignore[no-untyped-def]
    assert q.shape == k.shape
    return _reference(q, k, v, cu_seq_q, q.shape[-1] ** -0.5, -1, 0 if is_causal else -1)


def _torch_2_11(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):  # type: ignore[no-untyped-def]
    assert q.shape == k.shape
    return _reference(q, k, v, cu_seq_q, scale, *window_size)


def _torch_2_12(  # type: ignore[no-untyped-def]
    q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False
):
    assert enable_gqa == (q.shape != k.shape)
    return _reference(q, k, v, cu_seq_q, scale, *window_size)


def _flash(  # type: ignore[no-untyped-def]
    q, k, v, cu_q, cu_k, max_q, max_k, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1)
):
    return _reference(q, k, v, cu_q, softmax_scale, window_size[0], 0 if causal else window_size[1])


@pytest.mark.parametrize("kernel", [_torch_2_10, _torch_2_11, _torch_2_12, _flash])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("heads", [2, 4])
def test_every_release_of_the_kernels_is_asked_for_the_same(  # type: ignore[no-untyped-def]
    kernel, causal: bool, window: int | None, heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "flash-attn" if kernel is _flash else "torch"
    monkeypatch.setattr(attention, "varlen_kernel", lambda: (name, kernel))
    torch.manual_seed(0)
    query, key, value = (torch.randn(14, h, 8, dtype=torch.float64) for h in (4, heads, heads))
    boundaries = torch.tensor([0, 9, 13, 14], dtype=torch.int32)
    options = {"scale": 0.7, "causal": causal, "window": window}
    fused = attention.attend_by_kernel(query, key, value, boundaries, 9, **options)
    slow = attention.attend_by_runs(query, key, value, boundaries, dropout=0.0, **options)
    torch.testing.assert_close(fused, slow)


def test_flash_attention_is_taken_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(installed: Any) -> tuple[str, Any]:
        monkeypatch.setitem(sys.modules, "flash_attn", installed)
        return attention.varlen_kernel.__wrapped__()

    assert chosen(SimpleNamespace(flash_attn_varlen_func=_flash)) == ("flash-attn", _flash)
    assert chosen(None)[0] == "torch"


BF16, FP32 = torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, BF16),
        ({"dtype": FP32}, None),
        ({"dtype": FP32, "autocast": BF16}, BF16),
        ({"dtype": torch.float64, "autocast": BF16}, None),
        ({"dropout": 0.1}, None),
        ({"size": 80}, BF16),
        ({"size": 84}, None),
        ({"size": 264}, None),
        ({"capability": (7, 5)}, None),
        ({"is_cuda": False}, None),
    ],
)
def test_the_fused_kernel_is_asked_for_what_it_takes(
    changes: dict[str, Any], expected: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"dtype": BF16, "size": 128, "dropout": 0.0, "is_cuda": True, "autocast": None}
    given |= {"capability": (9, 0), **changes}
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: given["autocast"] is not None)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: given["autocast"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: given["capability"])
    query: Any = SimpleNamespace(
        dtype=given["dtype"], shape=(1, 4, 9, given["size"]), is_cuda=given["is_cuda"], device="cuda"
    )
    assert attention.varlen_dtype(query, given["dropout"]) == expected
