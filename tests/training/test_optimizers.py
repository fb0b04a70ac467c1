"""Optimizers behind one key: what each updates, and that a saved state goes on bitwise."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from reasoning_embedding import config
from reasoning_embedding.checkpoints.state import load_state, save_state
from reasoning_embedding.errors import SetupError
from reasoning_embedding.training.optimizers import build_optimizer

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes"
)
KINDS = ["adamw", "muon", pytest.param("adamw8bit", marks=needs_bitsandbytes)]


class _Model(nn.Module):
    """An embedding, a matrix of the body (large enough for 8 bits), and vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 128)
        self.matrix = nn.Linear(128, 64)
        self.norm = nn.LayerNorm(64)

    def forward(self, ids: Tensor) -> Tensor:
        return self.norm(self.matrix(self.table(ids)))


def _model() -> _Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _Model()


def _training(kind: str) -> config.Training:
    return config.Training.model_validate({"learning_rate": 1e-2, "optimizer": {"kind": kind}})


def _train(model: _Model, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        ids = torch.arange(step, step + 6) % 20
        target = torch.linspace(-1, 1, 64).roll(step)
        (model(ids) - target).pow(2).mean().backward()
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 / (step + 1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_state_goes_on_bitwise(kind: str, tmp_path: Path) -> None:
    whole = _model()
    optimizer = build_optimizer(whole, _training(kind))
    _train(whole, optimizer, range(3))
    save_state(tmp_path / "state", whole, optimizer, parameters=True, step=3)
    _train(whole, optimizer, range(3, 6))

    resumed = _model()
    optimizer = build_optimizer(resumed, _training(kind))
    load_state(tmp_path / "state", resumed, optimizer)
    _train(resumed, optimizer, range(3, 6))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name

    forgetful = _model()
    optimizer = build_optimizer(forgetful, _training(kind))
    load_state(tmp_path / "state", forgetful, build_optimizer(forgetful, _training(kind)))
    _train(forgetful, optimizer, range(3, 6))
    assert not torch.equal(forgetful.matrix.weight, whole.matrix.weight), "the state matters"


def test_muon_takes_matrices_of_the_body_alone() -> None:
    found, adamw, muon = _model(), _model(), _model()
    training = _training("muon")
    _train(found, build_optimizer(found, training), range(3))
    _train(adamw, build_optimizer(adamw, _training("adamw")), range(1))
    _train(
        muon,
        torch.optim.Muon(
            [muon.matrix.weight], lr=1e-2, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        ),
        range(1),
    )
    first = _model()
    _train(first, build_optimizer(first, training), range(1))
    assert torch.equal(first.matrix.weight, muon.matrix.weight)
    for name in ("table.weight", "matrix.bias", "norm.weight", "norm.bias"):
        assert torch.equal(first.state_dict()[name], adamw.state_dict()[name]), name
    assert not torch.equal(first.matrix.weight, adamw.matrix.weight)


def test_frozen_parameters_belong_to_no_optimizer() -> None:
    for kind in ("adamw", "muon"):
        model = _model()
        model.matrix.requires_grad_(False)
        optimizer = build_optimizer(model, _training(kind))
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert held == {id(p) for p in model.parameters() if p.requires_grad}


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(SetupError, match=r"\[bitsandbytes\]"):
        build_optimizer(_model(), _training("adamw8bit"))
