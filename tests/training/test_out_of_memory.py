"""Out of memory: the message names the setting and the value to try."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.errors import TrainingError
from reasoning_embedding.training.out_of_memory import explain_out_of_memory, remedies


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({"memory": "store"}, "training.memory=auto (now store)"),
        ({"memory": "hybrid", "store_tokens": 9}, "training.store_tokens=4 (now 9)"),
        ({"memory": "auto", "store_tokens": 0}, "training.pack_tokens=8192 (now 16384)"),
        ({"memory": "auto"}, "training.memory=replay (now auto)"),
        ({"memory": "replay", "pack_tokens": 4096}, "training.pack_tokens=2048 (now 4096)"),
        ({"memory": "replay", "pack_tokens": 600}, "training.activation_checkpointing=selective (now false)"),
        (
            {"activation_checkpointing": True, "pack_tokens": 600},
            "training.lora.rank=16 (now all weights are trained)",
        ),
        (
            {"activation_checkpointing": True, "pack_tokens": 600, "lora": {}, "batch_size": 64},
            "training.batch_size=32 (now 64)",
        ),
    ],
)
def test_the_cheapest_remedy_comes_first(settings: dict[str, Any], first: str) -> None:
    training = config.Training.model_validate(settings)
    found = remedies(training)
    assert found[0] == first
    for remedy in found:  # each is an override that the configuration takes
        key, _, value = remedy.split(" (now")[0].partition("=")
        assert key.startswith("training.")
        assert value


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
    ],
    ids=["gpu", "driver", "cublas", "python", "cpu"],
)
def test_it_becomes_an_error_with_a_remedy(error: Exception) -> None:
    with (
        pytest.raises(TrainingError, match="out of memory") as caught,
        explain_out_of_memory(config.Training()),
    ):
        raise error
    assert "training.pack_tokens=8192 (now 16384)" in str(caught.value)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), RecursionError("deep"), ValueError("no")])
def test_other_errors_stay_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explain_out_of_memory(config.Training()):
        raise error
    assert caught.value is error
