"""Resuming in shards: of a saved state each rank reads, copies and holds its own part alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from reasoning_embedding.backbones import Embedder
from reasoning_embedding.checkpoints.state import read_state, write_state
from reasoning_embedding.distributed import World
from reasoning_embedding.distributed.harness import run_ranks
from reasoning_embedding.training.engines import Engine
from tests.distributed.engine_cases import build
from tests.models import tiny_embedder

#: Most parameters are those of one tensor: a copy of it would be more than a rank's part.
WORDS = 5000


def _embedder() -> Embedder:
    return tiny_embedder(vocab_size=WORDS)


def _local(value: Any) -> torch.Tensor:
    return value.to_local() if hasattr(value, "to_local") else value


class _LargestCopy(TorchDispatchMode):
    """Bytes of the largest tensor that an operation makes, views of what there was left out."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__()
        entries = given["state"].values()
        self._given = {value.untyped_storage().data_ptr() for entry in entries for value in entry.values()}
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, list | tuple) else [out]:
            if isinstance(value, torch.Tensor):
                storage = _local(value).untyped_storage()
                if storage.data_ptr() not in self._given:
                    self.bytes = max(self.bytes, storage.nbytes())
        return out


def _held(engine: Engine) -> int:
    """Bytes behind the optimizer's state, views counted as all that they keep alive."""
    optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)  # DeepSpeed wraps torch's
    values = [_local(value) for entry in optimizer.state.values() for value in entry.values()]
    return sum({v.untyped_storage().data_ptr(): v.untyped_storage().nbytes() for v in values}.values())


def _resume(world: World, kind: str, folder: Path) -> tuple[int, int, dict[str, Any]]:
    engine = build(kind, _embedder(), world)
    state, _, _ = read_state(folder)
    with _LargestCopy(state) as copies:
        engine.load_optimizer_state(state)
    return copies.bytes, _held(engine), engine.optimizer_state()["state"]


@pytest.mark.parametrize("kind", ["fsdp2", "zero2", "zero3"])
def test_each_rank_takes_its_part_of_a_saved_state(kind: str, tmp_path: Path) -> None:
    whole = build("replicated", _embedder(), World())
    rng = np.random.default_rng(0)
    for parameter in whole.embedder.parameters():
        parameter.grad = torch.from_numpy(rng.normal(size=parameter.shape).astype(np.float32))
    whole.update(1e-3)
    saved = whole.optimizer_state()
    write_state(tmp_path / "state", saved, {})

    parameters = sum(parameter.numel() for parameter in whole.embedder.parameters())
    part = 4 * parameters / 3  # of one moment, in fp32
    ranks = run_ranks(3, _resume, kind, tmp_path / "state")
    for copied, held, _ in ranks:
        assert 0 < copied < 1.1 * part
        assert 0.9 * 2 * part < held < 1.1 * 2 * part
    loaded = ranks[0][2]
    assert loaded.keys() == saved["state"].keys()
    for index, entry in saved["state"].items():
        for name, value in entry.items():
            assert torch.equal(loaded[index][name], value), (index, name)
