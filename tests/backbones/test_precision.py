"""What layers compute in: the dtype asked for where the processor has it, float32 where it would be software."""

from __future__ import annotations

import pytest
import torch

from reasoning_embedding.backbones import compute_dtype, multiplies_bfloat16, precision

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize("has", [True, False])
def test_bf16_is_kept_where_there_are_products_for_it(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: has)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: has)
    for device in (CPU, GPU):
        assert compute_dtype("bf16", device) == (torch.bfloat16 if has else None)
    assert compute_dtype("fp32", CPU) is None
    assert compute_dtype("fp32", GPU) is None


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_the_answer_is_that_of_the_library_which_multiplies() -> None:
    weight = torch.ones(32, 32, dtype=torch.bfloat16)
    try:
        torch.ops.mkldnn._reorder_linear_weight(weight, 32)
        taken = True
    except RuntimeError:
        taken = False
    assert multiplies_bfloat16() == taken
